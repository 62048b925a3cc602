"use strict";
// A chart as a file, drawn again for paper: light colours, a title, and a legend of its lines.
function forPaper(figure) {
  const probe = make("span", { style: "color-scheme: light" });
  document.body.append(probe);
  const colour = (name, value) => {
    if (typeof value !== "string" || !/^var\(--\w+\)$/.test(value)) return value;
    probe.style.color = value;
    return getComputedStyle(probe).color;
  };
  const spec = JSON.parse(JSON.stringify(specOf(figure.querySelector(".plot"))), colour);
  probe.remove();
  for (const layer of spec.layer) {
    for (const channel of [layer.encoding.color, layer.encoding.strokeDash]) {
      if (channel?.legend === null && channel.scale?.domain?.length > 1) channel.legend = { title: null, orient: "bottom", columns: 2, labelLimit: 0 };
    }
  }
  const title = { text: figure.querySelector("h3").textContent, anchor: "start", fontSize: 14 };
  return { ...spec, title, width: 480, background: "white" };
}

// A text that a spreadsheet would take for a formula is quoted.
function csvField(value) {
  const text = String(value ?? "");
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function asCsv(spec) {
  const named = ["line", "label", "step", "value", "low", "high"];
  const rows = Object.values(spec.datasets).find((values) => "value" in values[0]);
  const columns = named.filter((name) => name in rows[0]);
  return [columns, ...rows.map((row) => columns.map((name) => row[name]))]
    .map((row) => row.map(csvField).join(",") + "\r\n")
    .join("");
}

async function saveChart(button) {
  const figure = button.closest("figure");
  const kind = button.dataset.kind;
  const spec = forPaper(figure);
  let content = asCsv(spec);
  if (kind !== "CSV") {
    const { view } = await window.vegaEmbed(make("div"), spec, chartOptions);
    if (kind === "SVG") content = await view.toSVG();
    else {
      const canvas = await view.toCanvas(3);
      content = await new Promise((done) => canvas.toBlob(done, "image/png"));
    }
    view.finalize();
  }
  const name = `${figure.querySelector("h3").textContent} ${document.title}`.replace(/[^\p{L}\p{N}.+-]+/gu, "-");
  const type = { SVG: "image/svg+xml", PNG: "image/png", CSV: "text/csv" }[kind];
  const url = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: url, download: `${name.slice(0, 100)}.${kind.toLowerCase()}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".save button");
  if (button && window.vegaEmbed) saveChart(button);
});
