// A table as a picture: what the page shows of it, drawn word by word at its place.
"use strict";
(() => {
  const SCALE = 2;

  function painted(table) {
    const frame = table.getBoundingClientRect();
    const canvas = document.createElement("canvas");
    canvas.width = Math.ceil(frame.width * SCALE);
    canvas.height = Math.ceil(frame.height * SCALE);
    const pen = canvas.getContext("2d");
    pen.scale(SCALE, SCALE);
    pen.translate(-frame.left, -frame.top);
    fill(pen, frame, getComputedStyle(document.documentElement).backgroundColor);
    fill(pen, frame, getComputedStyle(document.body).backgroundColor);
    for (const cell of table.querySelectorAll("th, td")) {
      fill(pen, cell.getBoundingClientRect(), getComputedStyle(cell).backgroundColor);
    }
    write(pen, table);
    return canvas;
  }

  function fill(pen, box, colour) {
    pen.fillStyle = colour;
    pen.fillRect(box.left, box.top, box.width, box.height);
  }

  // A range knows where each word stands, whichever line it came to; what is hidden has no width.
  function write(pen, table) {
    const texts = document.createTreeWalker(table, NodeFilter.SHOW_TEXT);
    const range = document.createRange();
    pen.textBaseline = "middle";
    while (texts.nextNode()) {
      const node = texts.currentNode;
      const style = getComputedStyle(node.parentElement);
      pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
      pen.fillStyle = style.color;
      for (const word of node.data.matchAll(/\S+/g)) {
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        const { left, top, bottom, width } = range.getBoundingClientRect();
        if (width) pen.fillText(word[0], left, (top + bottom) / 2);
      }
    }
  }

  Object.assign(window.epochmark, { painted });
})();
