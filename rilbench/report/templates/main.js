"use strict";
async function unpack() {
  const { address } = byId("payload").dataset;
  if (address) return askQuestions(address);
  if (!byId("payload").textContent) return { sets: [], runs: [] };
  const text = atob(byId("payload").textContent);
  const packed = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) packed[at] = text.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

async function start() {
  byId("compare").addEventListener("change", showPaper);
  byId("intervals").addEventListener("change", showIntervals);
  showPaper();
  showIntervals();
  themeButton();
  const { sets, runs } = await unpack();
  if (sets.length) window.questions = new Questions(sets);
  if (runs.length) window.groups = new Groups(runs);
  const { curves } = byId("payload").dataset;
  if (curves) followRuns(curves);
  byId("choices")?.addEventListener("change", () => byId("choices").submit());
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

document.addEventListener("keydown", (event) => {
  const writing = event.target.closest?.("input, select, textarea");
  if (event.key === "Escape" && event.target.type === "search") event.target.blur();
  if (event.key !== "/" || writing || event.ctrlKey || event.metaKey || event.altKey) return;
  const search = byId(event.target.closest?.("#groups") ? "group-text" : "text");
  if (!search) return;
  event.preventDefault();
  search.focus();
  search.select();
});
start().finally(() => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startCharts);
  else startCharts();
});
