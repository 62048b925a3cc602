"use strict";
// Text reaches the page through textContent only: whatever a response says, it is shown, never run.
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const byId = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");

function fill(select, options, chosen) {
  select.replaceChildren(
    ...options.map(([value, text]) => make("option", { value, text, selected: value === chosen }))
  );
}

// Search 120 ms after the last key, and at once when the field is left, so that the list does not
// change later.
function searches(input, act) {
  let timer = 0;
  const now = () => {
    if (timer) act();
    clearTimeout(timer);
    timer = 0;
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(now, 120);
  });
  input.addEventListener("blur", now);
}

// Pictures are most of the page and come last: the page opens before they are read.
let pictureUrls = null;
function showPicture(image, number) {
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", () => showPicture(image, number), { once: true });
    return;
  }
  pictureUrls ??= JSON.parse(byId("pictures").textContent);
  image.src = pictureUrls[number];
}

function thumbnail(pictures) {
  const first = pictures.find((each) => typeof each === "number");
  const box = make("span", { class: "thumb", "aria-hidden": "true" });
  if (first !== undefined) {
    const image = make("img", { alt: "", decoding: "async" });
    showPicture(image, first);
    box.append(image);
  }
  return box;
}

function shots(pictures, nothing) {
  const box = make("div", { class: pictures.length > 1 ? "shots many" : "shots" });
  pictures.forEach((each, index) => {
    if (typeof each !== "number") {
      box.append(make("p", { text: `Picture ${index + 1} ${each.replace(/^the picture /, "")}` }));
      return;
    }
    const image = make("img", { alt: `Picture ${index + 1} of the question` });
    image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth < 160));
    showPicture(image, each);
    box.append(image);
  });
  if (!pictures.length) box.append(make("p", { text: nothing }));
  return box;
}

function verdict(score) {
  if (score === undefined) return ["–", "not asked", ""];
  if (score === null) return ["?", "no verdict", ""];
  if (score >= 1) return ["✓", "right", "right"];
  if (score <= 0) return ["✗", "wrong", "wrong"];
  return [score.toFixed(2).replace(/0$/, ""), "partly right", ""];
}

function chip(name, score) {
  const [mark, words, tone] = verdict(score);
  const named = name ? [make("span", { class: "name", text: name }), ` ${mark}`] : [mark];
  return make("span", { class: `chip ${tone}`, title: `${name} ${words}`.trim() }, ...named);
}

// A list that shows one page at a time.
class Pages {
  constructor(list, pager, build, size = 50) {
    Object.assign(this, { list, pager, build, size, items: [], page: 0 });
    list.addEventListener("click", (event) => this.toggle(event.target.closest(".row")));
    list.addEventListener("keydown", (event) => this.key(event));
  }

  get last() {
    return Math.max(0, Math.ceil(this.items.length / this.size) - 1);
  }

  show(items) {
    this.items = items;
    this.go(0);
  }

  go(page, focus = false) {
    this.page = Math.min(Math.max(page, 0), this.last);
    const start = this.page * this.size;
    const shown = this.items.slice(start, start + this.size);
    this.list.start = start + 1;
    this.list.replaceChildren(...shown.map((item) => this.entry(item)));
    this.pages();
    if (focus) {
      this.list.querySelector(".row")?.focus({ preventScroll: true });
      this.list.closest("section").querySelector(".status").scrollIntoView({ block: "start" });
    }
  }

  entry(item) {
    const { head, detail } = this.build(item);
    const row = make("button", { class: "row", type: "button", "aria-expanded": "false" }, ...head);
    row.detail = detail;
    return make("li", null, row);
  }

  toggle(row) {
    if (!row) return;
    const open = row.getAttribute("aria-expanded") !== "true";
    row.setAttribute("aria-expanded", String(open));
    if (open) row.after(make("div", { class: "detail" }, ...row.detail()));
    else row.nextElementSibling.remove();
  }

  pages() {
    if (!this.last) {
      this.pager.replaceChildren();
      return;
    }
    const button = (text, page, disabled) => {
      const made = make("button", { type: "button", text, disabled });
      made.addEventListener("click", () => this.go(page, true));
      return made;
    };
    this.pager.replaceChildren(
      button("First", 0, !this.page),
      button("Previous", this.page - 1, !this.page),
      make("span", { text: `Page ${count(this.page + 1)} of ${count(this.last + 1)}` }),
      button("Next", this.page + 1, this.page === this.last),
      button("Last", this.last, this.page === this.last)
    );
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const row = event.target.closest(".row");
    const rows = [...this.list.querySelectorAll(".row")];
    const at = rows.indexOf(row);
    const moves = { j: at + 1, ArrowDown: at + 1, k: at - 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 };
    if (row && event.key in moves) {
      rows[Math.min(Math.max(moves[event.key], 0), rows.length - 1)].focus();
    } else if (event.key === "n" && this.page < this.last) this.go(this.page + 1, true);
    else if (event.key === "p" && this.page > 0) this.go(this.page - 1, true);
    else return;
    event.preventDefault();
  }
}
