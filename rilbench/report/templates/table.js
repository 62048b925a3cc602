"use strict";
function showPaper() {
  const wanted = byId("compare").value;
  for (const body of document.querySelectorAll("tbody.paper")) {
    body.classList.toggle("shown", wanted === "*" || body.dataset.student === wanted);
  }
}

function showIntervals() {
  document.querySelector(".scores").classList.toggle("intervals", byId("intervals").checked);
}

function themeButton() {
  const button = byId("theme");
  const root = document.documentElement;
  const next = { auto: "light", light: "dark", dark: "auto" };
  const say = () => {
    const now = root.dataset.theme ?? "auto";
    button.querySelector(".words").textContent = `Theme: ${now}`;
    button.title = `Change to ${next[now]}`;
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const wanted = next[root.dataset.theme ?? "auto"];
    if (wanted === "auto") delete root.dataset.theme;
    else root.dataset.theme = wanted;
    try {
      localStorage.setItem("rilbench-theme", wanted);
    } catch {
      // Not kept; it holds for this visit.
    }
    say();
  });
  say();
}
