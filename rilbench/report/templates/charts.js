"use strict";
// With ast, expressions are interpreted: nothing on this page is ever compiled from text.
const chartOptions = { renderer: "svg", actions: false, ast: true, tooltip: { theme: "custom" } };
let chartSpecs = null;
function specOf(place) {
  chartSpecs ??= JSON.parse(byId("specs").textContent);
  return chartSpecs[Number(place.dataset.chart)];
}

// A chart is drawn when it comes near the window, so that many charts do not delay the start.
function drawCharts() {
  const draw = (place) => {
    if (place.drawn) return;
    place.drawn = true;
    window.vegaEmbed(place, specOf(place), chartOptions);
  };
  const places = [...document.querySelectorAll(".plot")];
  const watcher = new IntersectionObserver(
    (seen) => seen.filter((each) => each.isIntersecting).forEach((each) => draw(each.target)),
    { rootMargin: "600px" }
  );
  places.forEach((place) => watcher.observe(place));
  window.addEventListener("beforeprint", () => places.forEach(draw));
  document.documentElement.dataset.charts = "ready";
}

// The library of the charts runs after the questions are shown: it takes longer than they do.
function startCharts() {
  const { textContent: library, dataset } = byId("vega");
  if (!document.querySelector(".plot")) return;
  const script = make("script", { type: "module", src: dataset.address || null });
  if (library) script.textContent = library;
  window.addEventListener("vega", drawCharts, { once: true });
  document.body.append(script);
}
