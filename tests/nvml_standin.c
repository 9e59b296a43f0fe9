/* A stand-in for NVIDIA's libnvidia-ml.so.1: answers what the file named by NVML_STANDIN says.

   The file is read at every call, so that a test can change it meanwhile. Its lines:
     NAME VALUE           an answer, such as `power_mw 650000`
     NAME@DEVICE VALUE    the same of one device, for `reasons` and `name`
     process PID BYTES    a process that computes; may stand there several times
     error FUNCTION CODE  that function fails, with an nvmlReturn_t
   Whatever is not in the file is NOT_SUPPORTED. Signatures and structures are those of nvml.h. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t;
typedef unsigned long long u64;

typedef struct {
  u64 total, free, used;
} nvmlMemory_t;

typedef struct {
  unsigned int gpu, memory;
} nvmlUtilization_t;

typedef struct {
  unsigned int pid;
  u64 usedGpuMemory;
  unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

/* Calls `found` with each line's text behind `name`, until it returns something. */
static int search(const char *name, int (*found)(const char *rest, void *to), void *to) {
  char line[512];
  size_t length = strlen(name);
  int answer = 0;
  FILE *file = fopen(getenv("NVML_STANDIN"), "r");
  if (!file) return 0;
  while (!answer && fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, name, length) && line[length] == ' ') answer = found(line + length + 1, to);
  }
  fclose(file);
  return answer;
}

typedef struct {
  const char *function;
  int code;
} Failure;

static int failure(const char *rest, void *to) {
  Failure *wanted = to;
  char function[128];
  int code;
  if (sscanf(rest, "%127s %d", function, &code) != 2) return 0;
  if (strcmp(function, wanted->function)) return 0;
  wanted->code = code;
  return 1;
}

static nvmlReturn_t fails(const char *function) {
  Failure wanted = {function, SUCCESS};
  search("error", failure, &wanted);
  return wanted.code;
}

static int number(const char *rest, void *to) {
  *(u64 *)to = strtoull(rest, 0, 0);
  return 1;
}

static nvmlReturn_t value(const char *function, const char *name, u64 *to) {
  nvmlReturn_t code = fails(function);
  if (code) return code;
  return search(name, number, to) ? SUCCESS : NOT_SUPPORTED;
}

static nvmlReturn_t small(const char *function, const char *name, unsigned int *to) {
  u64 found = 0;
  nvmlReturn_t code = value(function, name, &found);
  *to = (unsigned int)found;
  return code;
}

static int text(const char *rest, void *to) {
  strcpy(to, rest);
  return 1;
}

static nvmlReturn_t words(const char *function, const char *name, char *to, unsigned int size) {
  char found[512] = "";
  nvmlReturn_t code = fails(function);
  if (code) return code;
  if (!search(name, text, found)) return NOT_SUPPORTED;
  if (strlen(found) >= size) return INSUFFICIENT_SIZE;
  strcpy(to, found);
  return SUCCESS;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
  (void)flags;
  return fails(__func__);
}

nvmlReturn_t nvmlShutdown(void) { return fails(__func__); }

const char *nvmlErrorString(nvmlReturn_t code) {
  (void)code;
  return "an error of the stand-in";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *to, unsigned int size) {
  return words(__func__, "driver", to, size);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) { return small(__func__, "count", count); }

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
  unsigned int count = 0;
  nvmlReturn_t code = fails(__func__);
  if (code) return code;
  small("", "count", &count);
  *device = (nvmlDevice_t)(size_t)(index + 1);
  return index < count ? SUCCESS : INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *to, unsigned int size) {
  char name[24];
  snprintf(name, sizeof name, "name@%d", (int)(size_t)device - 1);
  nvmlReturn_t code = words(__func__, name, to, size);
  return code == NOT_SUPPORTED ? words(__func__, "name", to, size) : code;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *to, unsigned int size) {
  char name[16];
  snprintf(name, sizeof name, "uuid%d", (int)(size_t)device - 1);
  return words(__func__, name, to, size);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *to) {
  nvmlReturn_t code = value(__func__, "memory_total", &to->total);
  (void)device;
  if (code) return code;
  value("", "memory_used", &to->used);
  to->free = to->total - to->used;
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *to) {
  (void)device;
  to->memory = 0;
  return small(__func__, "utilisation", &to->gpu);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *to) {
  (void)device;
  return small(__func__, "power_mw", to);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, u64 *to) {
  (void)device;
  return value(__func__, "energy_mj", to);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *to) {
  (void)device;
  return sensor ? INVALID_ARGUMENT : small(__func__, "temperature", to);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int clock, unsigned int *to) {
  (void)device;
  return small(__func__, clock == 1 ? "sm_clock_mhz" : "memory_clock_mhz", to);
}

static nvmlReturn_t reasons(const char *function, nvmlDevice_t device, u64 *to) {
  char name[24];
  snprintf(name, sizeof name, "reasons@%d", (int)(size_t)device - 1);
  nvmlReturn_t code = value(function, name, to);
  return code == NOT_SUPPORTED ? value(function, "reasons", to) : code;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, u64 *to) {
  return reasons(__func__, device, to);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, u64 *to) {
  return reasons(__func__, device, to);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *now, unsigned int *pending) {
  nvmlReturn_t code = small(__func__, "mig", now);
  (void)device;
  *pending = *now;
  return code;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned int *to) {
  (void)device;
  return small(__func__, "persistence", to);
}

typedef struct {
  unsigned int room, count;
  nvmlProcessInfo_t *to;
} Processes;

static int process(const char *rest, void *to) {
  Processes *all = to;
  unsigned int pid;
  u64 bytes;
  if (sscanf(rest, "%u %llu", &pid, &bytes) == 2 && all->count++ < all->room)
    all->to[all->count - 1] = (nvmlProcessInfo_t){pid, bytes, ~0u, ~0u};
  return 0;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_t *to) {
  Processes all = {to ? *count : 0, 0, to};
  nvmlReturn_t code = fails(__func__);
  (void)device;
  if (code) return code;
  search("process", process, &all);
  *count = all.count;
  return all.count > all.room ? INSUFFICIENT_SIZE : SUCCESS;
}
