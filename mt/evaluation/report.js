"use strict";
// The list of all sentences: it is read when first opened, and drawn a page at a time, so that
// thousands of sentences cost nothing until they are looked at. Text is only ever set as text.
const PAGE = 40;

function make(name, text, parent) {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

// Pieces of a text, every second one of which differs from its counterpart.
function textCell(list, name, language, pieces, mark) {
  make("dt", name, list);
  const cell = make("dd", "", list);
  cell.dir = "auto";
  cell.lang = language;
  if (!pieces.join("")) {
    cell.className = "empty";
    cell.textContent = "(empty)";
    return;
  }
  pieces.forEach((piece, index) => {
    if (piece) cell.append(index % 2 ? make(mark, piece) : piece);
  });
}

function setUp(browser) {
  const rows = JSON.parse(browser.querySelector("script").textContent).map(
    ([number, chrf, source, reference, hypothesis, others]) => {
      const translations = [hypothesis, ...others];
      const texts = [reference, ...translations].map((pieces) => pieces.join(""));
      const text = [source, ...texts].join("\n").toLowerCase();
      return { number, chrf, source, reference, translations, text };
    });
  const systems = JSON.parse(browser.dataset.systems);
  const filter = browser.querySelector("input");
  const order = browser.querySelector("select");
  const count = browser.querySelector("output");
  const list = browser.querySelector(".list");
  const more = browser.querySelector("button");
  const orders = {
    number: (a, b) => a.number - b.number,
    worst: (a, b) => a.chrf - b.chrf,
    best: (a, b) => b.chrf - a.chrf,
    longest: (a, b) => b.source.length - a.source.length,
  };
  let found = [];
  let shown = 0;

  function draw() {
    const end = Math.min(shown + PAGE, found.length);
    for (; shown < end; shown++) {
      const row = found[shown];
      const card = make("article", "", list);
      card.className = "example card";
      const head = make("p", "Sentence " + row.number.toLocaleString("en") + " · chrF ", card);
      make("b", row.chrf.toFixed(0), head);
      const texts = make("dl", "", card);
      textCell(texts, "Source", browser.dataset.source, [row.source], "span");
      textCell(texts, "Reference", browser.dataset.target, row.reference, "del");
      row.translations.forEach((pieces, index) => {
        textCell(texts, systems[index], browser.dataset.target, pieces, "ins");
      });
    }
    more.hidden = shown >= found.length;
    count.textContent = found.length.toLocaleString("en") + " of " + rows.length.toLocaleString("en");
  }
  function search() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = rows.filter((row) => words.every((word) => row.text.includes(word)));
    found.sort(orders[order.value]);
    shown = 0;
    list.replaceChildren();
    draw();
  }
  let waiting;
  filter.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 100);
  });
  order.addEventListener("change", search);
  more.addEventListener("click", () => {
    const first = list.children.length;
    draw();
    list.children[first].tabIndex = -1;
    list.children[first].focus({ preventScroll: true });
  });
  search();
}

for (const browser of document.querySelectorAll(".browser")) {
  const prepare = () => {
    if (browser.open && !browser.dataset.ready) {
      browser.dataset.ready = "yes";
      setUp(browser);
    }
  };
  browser.addEventListener("toggle", prepare);
  prepare(); // a reloaded page may come back with the list open
}
// On paper nothing can be opened any more.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll(".recipe details")) part.open = true;
});
