"use strict";
// In the head: the page is never painted in the wrong colours.
document.documentElement.classList.add("js");
try {
  const kept = localStorage.getItem("rilbench-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch {
  // A browser that keeps nothing for local files: the system's colours.
}
