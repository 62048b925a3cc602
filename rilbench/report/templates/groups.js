"use strict";
// A group: [question id, text, gold, data set, pictures, rows];
// a row: [source, response, verdict, similarity, discriminator, advantage, tokens].
class Groups {
  constructor(runs) {
    this.steps = runs.flatMap((run) => run.steps.map((step) => ({ ...step, run: run.name })));
    this.pages = new Pages(byId("group-list"), byId("group-pager"), (each) => this.build(each));
    const named = this.steps.map((each, index) => {
      const run = runs.length > 1 ? `${each.run}: ` : "";
      return [String(index), `${run}step ${each.step}`];
    });
    fill(byId("step"), named, String(this.steps.length - 1));
    byId("step").addEventListener("change", () => this.update());
    searches(byId("group-text"), () => this.update());
    byId("groups").querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    this.update();
  }

  update() {
    const step = this.steps[Number(byId("step").value)];
    const text = byId("group-text").value.trim().toLowerCase();
    const shown = step.groups.filter((each) => {
      const words = [each[0], each[1], each[2], each[3], ...each[5].map((row) => row[1])];
      return words.join("\n").toLowerCase().includes(text);
    });
    const left = step.left_out ? `; ${count(step.left_out)} more of this step are not on the page` : "";
    byId("group-status").textContent = `${count(shown.length)} of ${count(step.groups.length)} groups${left}`;
    this.pages.show(shown);
  }

  build([id, text, gold, set, pictures, rows]) {
    const student = rows.filter((row) => row[0] === "student");
    const others = rows.filter((row) => row[0] !== "student");
    const head = [
      thumbnail(pictures),
      make("span", null,
        make("span", { class: "meta" }, make("b", { text: set || "question" }), ` ${id}`),
        make("span", { class: "asked", text: text || "(the training data are not there)" })),
      make("span", { class: "chips" }, this.share("student ✓", student, 2),
        this.share("seen as teacher’s", student, 3), this.share("teachers ✓", others, 2)),
    ];
    const detail = () => [
      shots(pictures, "The picture is not there: the training data are gone."),
      make("dl", { class: "pair" },
        make("dt", { text: "question" }), make("dd", null, make("p", { class: "said", text: text || "not there" })),
        make("dt", { text: "gold" }), make("dd", null, make("p", { class: "said", text: gold || "–" }))),
      make("div", { class: "wide scroll", tabindex: "0", role: "region", "aria-label": "Rows of the group" }, this.table(rows)),
    ];
    return { head, detail };
  }

  share(name, rows, at) {
    const known = rows.filter((row) => row[at] !== null);
    if (!known.length) return null;
    const good = known.reduce((sum, row) => sum + row[at], 0);
    const shown = Number.isInteger(good) ? good : good.toFixed(1);
    return make("span", { class: "chip", text: `${name} ${shown}/${known.length}` });
  }

  table(rows) {
    const heads = [["from", ""], ["response", ""], ["verdict", ""], ["similarity", "num"], ["D", "num"], ["advantage", "num"], ["tokens", "num"]];
    const number = (value, digits) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));
    const lines = rows.map(([source, response, answer, similarity, doubt, advantage, tokens]) => {
      const meter = make("span", { class: "meter", "aria-hidden": "true" }, make("i"));
      meter.firstChild.style.width = `${100 * (doubt ?? 0)}%`;
      return make("tr", null,
        make("td", null, make("span", { class: source === "student" ? "dot after" : "dot teacher" }), source),
        make("td", { class: "long" }, make("p", { class: "said", text: response || "(an empty response)" })),
        make("td", null, chip("", answer)),
        make("td", { class: "num", text: number(similarity, 2) }),
        make("td", { class: "num" }, number(doubt, 2), doubt === null ? null : meter),
        make("td", { class: "num", text: number(advantage, 2) }),
        make("td", { class: "num", text: tokens ?? "–" }));
    });
    return make("table", { class: "plain" },
      make("thead", null, make("tr", null, ...heads.map(([text, tone]) => make("th", { scope: "col", class: tone, text })))),
      make("tbody", null, ...lines));
  }
}
