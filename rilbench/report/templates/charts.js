"use strict";
// A chart is drawn when it comes near the window, so that many charts do not delay the start.
function drawCharts() {
  const specs = JSON.parse(byId("specs").textContent);
  const draw = (place) => {
    if (place.drawn) return;
    place.drawn = true;
    // With ast, expressions are interpreted: nothing on this page is ever compiled from text.
    const options = { renderer: "svg", actions: false, ast: true, tooltip: { theme: "custom" } };
    window.vegaEmbed(place, specs[Number(place.dataset.chart)], options);
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
  const library = byId("vega").textContent;
  if (!library) return;
  const script = make("script", { type: "module" });
  script.textContent = library;
  window.addEventListener("vega", drawCharts, { once: true });
  document.body.append(script);
}
