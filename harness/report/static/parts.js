// What every script of the page uses: elements, data files, and what a reader must be told.
// All that comes from results is set as text, never as markup.
"use strict";
(() => {
  const root = document.body.dataset.root;
  const waiting = new Map();
  const known = new Map();

  function take(key, content) {
    known.set(key, content);
    for (const [done] of waiting.get(key) ?? []) done(content);
    waiting.delete(key);
  }

  // A page from disk may not fetch; a script of data may be loaded from anywhere the page may be.
  function load(key) {
    if (known.has(key)) return Promise.resolve(known.get(key));
    return new Promise((done, fail) => {
      const first = !waiting.has(key);
      waiting.set(key, [...(waiting.get(key) ?? []), [done, fail]]);
      if (!first) return;
      const name = `data/${encodeURIComponent(key)}.js`;
      const script = made("script", { src: root + name });
      script.addEventListener("error", () => {
        for (const [, refuse] of waiting.get(key) ?? []) {
          refuse(new Error(`The file ${name} of this site is missing, so what it holds is not shown.`));
        }
        waiting.delete(key);
        script.remove();
      });
      document.head.append(script);
    });
  }

  function made(name, properties = {}, ...children) {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  }

  // A cell's id may end a line behind a slash, and nowhere within a word.
  function broken(text) {
    const parts = text.split("/");
    if (parts.length < 5) return [text];
    return parts.flatMap((part, place) => (place ? ["/", made("wbr"), part] : [part]));
  }

  const told = made("div", { id: "told" });
  told.setAttribute("role", "status");
  (document.querySelector("main h1") ?? document.querySelector("main").firstChild).after(told);

  function tell(messages) {
    const shown = [...told.children].map((one) => one.textContent);
    if (shown.join("\n") === messages.join("\n")) return;
    told.replaceChildren(...messages.map((text) => made("p", { className: "notice bad", textContent: text })));
  }

  window.epochmark = { root, take, load, made, broken, tell };
})();
