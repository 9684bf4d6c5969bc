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

// Wraps words, which marks may cut, in elements; returns the elements of each word.
function wrapWords(cell, places) {
  const words = Array.from({ length: places.length / 2 }, () => []);
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  let word = 0;
  let start = 0; // where `node` begins
  for (let node of texts) {
    const end = start + node.data.length;
    while (word < words.length && places[2 * word] < end) {
      const from = Math.max(places[2 * word], start);
      const to = Math.min(places[2 * word + 1], end);
      const part = from > start ? node.splitText(from - start) : node;
      const rest = to < end ? part.splitText(to - from) : null;
      const element = document.createElement("span");
      element.className = "word";
      part.replaceWith(element);
      element.append(part);
      words[word].push(element);
      start = to;
      if (places[2 * word + 1] > end) break; // it goes on in the next text
      word++;
      if (!rest) break;
      node = rest;
    }
    start = end;
  }
  return words;
}

// Shows, for a word of the translation, where attention was when it was written.
function showAttention(card, [sourcePlaces, targetPlaces, rows]) {
  const [sourceCell, , targetCell] = card.querySelectorAll("dd");
  const source = wrapWords(sourceCell, sourcePlaces);
  const target = wrapWords(targetCell, targetPlaces);
  if (!source.length || !target.length) return;
  const text = (word) => word.map((element) => element.textContent).join("");
  const told = make("span", "", card.querySelector("p"));
  told.className = "told";
  told.setAttribute("aria-live", "polite");
  let current = -1;

  function show(index) {
    if (index === current) return;
    current = index;
    target.forEach((word, i) => word.forEach((e) => e.classList.toggle("now", i === index)));
    source.forEach((word, i) => {
      const weight = index < 0 ? 0 : rows[index][i] / 9;
      word.forEach((element) => element.style.setProperty("--weight", weight));
    });
    told.textContent = "";
    if (index < 0) return;
    const seen = source.map((word, i) => [text(word), +rows[index][i]]).filter(([, w]) => w > 0);
    seen.sort((a, b) => b[1] - a[1]);
    const parts = seen.slice(0, 3).map(([word, w]) => word + " " + Math.round((100 * w) / 9) + "%");
    told.textContent = " · " + text(target[index]) + " ← " + parts.join(", ");
  }
  targetCell.tabIndex = 0;
  targetCell.setAttribute("role", "group");
  targetCell.setAttribute("aria-label", "Translation; arrow keys show attention word by word");
  targetCell.addEventListener("pointerover", (event) => {
    const index = target.findIndex((word) => word.includes(event.target.closest(".word")));
    if (index >= 0) show(index);
  });
  targetCell.addEventListener("pointerleave", () => show(-1));
  targetCell.addEventListener("blur", () => show(-1));
  targetCell.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.min(Math.max(current + step, 0), target.length - 1));
  });
  addHeatMap(card, source.map(text), target.map(text), rows);
}

// All weights of a sentence as a table, drawn when it is first opened.
function addHeatMap(card, source, target, rows) {
  const details = make("details", "", card);
  make("summary", "Attention", details);
  details.addEventListener("toggle", () => {
    const frame = make("div", "", details);
    frame.className = "wide";
    const table = make("table", "", frame);
    table.className = "heat";
    const head = make("tr", "", make("thead", "", table));
    make("td", "", head);
    for (const word of source) make("span", word, make("th", "", head)).dir = "auto";
    const body = make("tbody", "", table);
    rows.forEach((row, index) => {
      const line = make("tr", "", body);
      make("th", target[index], line).dir = "auto";
      for (const digit of row) {
        const cell = make("td", "", line);
        cell.style.setProperty("--weight", digit / 9);
        cell.title = Math.round((100 * digit) / 9) + "%";
      }
    });
  }, { once: true });
}

// The best translations of a sentence, with what the search ranks them by.
function addBest(card, rows, language) {
  const details = make("details", "", card);
  make("summary", rows.length + " best", details);
  const list = make("dl", "", details);
  for (const [score, text] of rows) textCell(list, score, language, [text], "span");
}

function setUp(browser) {
  const rows = JSON.parse(browser.querySelector("script").textContent).map(
    ([number, [chrf, ...others], source, reference, translations, attention, nBest]) => {
      const texts = [reference, ...translations].map((pieces) => pieces.join(""));
      const text = [source, ...texts].join("\n").toLowerCase();
      return { number, chrf, others, source, reference, translations, attention, nBest, text };
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
      row.others.forEach((chrf, index) => {
        head.append(", " + systems[index + 1] + " " + chrf.toFixed(0));
      });
      const texts = make("dl", "", card);
      textCell(texts, "Source", browser.dataset.source, [row.source], "span");
      textCell(texts, "Reference", browser.dataset.target, row.reference, "del");
      row.translations.forEach((pieces, index) => {
        textCell(texts, systems[index], browser.dataset.target, pieces, "ins");
      });
      if (row.nBest.length) addBest(card, row.nBest, browser.dataset.target);
      if (row.attention) showAttention(card, row.attention);
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

for (const card of document.querySelectorAll("[data-attention]")) {
  showAttention(card, JSON.parse(card.dataset.attention));
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
