"use strict";
// A group: [question id, text, gold, data set, pictures, responses];
// a response: [source, text, answer reward, similarity reward, discriminator, advantage, tokens].
class Groups {
  constructor(runs) {
    this.steps = runs.flatMap((run) => run.steps.map((step) => ({ ...step, run: run.name })));
    this.pages = new Pages(byId("group-list"), byId("group-pager"), (each) => this.build(each));
    const names = this.steps.map((each, index) => {
      const run = runs.length > 1 ? `${each.run}: ` : "";
      return [String(index), `${run}step ${each.step}`];
    });
    fill(byId("step"), names, String(this.steps.length - 1));
    byId("step").addEventListener("change", () => this.update());
    searches(byId("group-text"), () => this.update());
    byId("groups").querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    this.update();
  }

  update() {
    const step = this.steps[Number(byId("step").value)];
    const text = byId("group-text").value.trim().toLowerCase();
    const shown = step.groups.filter((each) => {
      const words = [each[0], each[1], each[2], each[3], ...each[5].map((response) => response[1])];
      return words.join("\n").toLowerCase().includes(text);
    });
    const left = step.left_out ? `; ${count(step.left_out)} more of this step are not on the page` : "";
    byId("group-status").textContent = `${count(shown.length)} of ${count(step.groups.length)} groups${left}`;
    this.pages.show(shown);
  }

  build([id, text, gold, set, pictures, responses]) {
    const student = responses.filter((each) => each[0] === "student");
    const teachers = responses.filter((each) => each[0] !== "student");
    const head = [
      thumbnail(pictures),
      make("span", null,
        make("span", { class: "meta" }, make("b", { text: set || "question" }), ` ${id}`),
        make("span", { class: "asked", text: text || "(the training data are missing)" })),
      make("span", { class: "chips" }, this.share("student ✓", student, 2),
        this.share("seen as teacher’s", student, 3), this.share("teachers ✓", teachers, 2)),
    ];
    const detail = () => [
      shots(pictures, "The picture is missing: the training data are gone."),
      make("dl", { class: "pair" },
        make("dt", { text: "question" }), make("dd", null, make("p", { class: "said", text: text || "missing" })),
        make("dt", { text: "gold" }), make("dd", null, make("p", { class: "said", text: gold || "–" }))),
      make("div", { class: "wide scroll", tabindex: "0", role: "region", "aria-label": "Responses of the group" }, this.table(responses)),
    ];
    return { head, detail };
  }

  share(name, responses, at) {
    const known = responses.filter((each) => each[at] !== null);
    if (!known.length) return null;
    const good = known.reduce((sum, each) => sum + each[at], 0);
    const shown = Number.isInteger(good) ? good : good.toFixed(1);
    return make("span", { class: "chip", text: `${name} ${shown}/${known.length}` });
  }

  table(responses) {
    const heads = [["from", ""], ["response", ""], ["answer reward", ""], ["similarity reward", "num"], ["D", "num"], ["advantage", "num"], ["tokens", "num"]];
    const number = (value, digits) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));
    const lines = responses.map(([source, response, answer, similarity, probability, advantage, tokens]) => {
      const meter = make("span", { class: "meter", "aria-hidden": "true" }, make("i"));
      meter.firstChild.style.width = `${100 * (probability ?? 0)}%`;
      return make("tr", null,
        make("td", null, make("span", { class: source === "student" ? "dot after" : "dot teacher" }), source),
        make("td", { class: "long" }, make("p", { class: "said", text: response || "(an empty response)" })),
        make("td", null, chip("", answer)),
        make("td", { class: "num", text: number(similarity, 2) }),
        make("td", { class: "num" }, number(probability, 2), probability === null ? null : meter),
        make("td", { class: "num", text: number(advantage, 2) }),
        make("td", { class: "num", text: tokens ?? "–" }));
    });
    return make("table", { class: "plain" },
      make("thead", null, make("tr", null, ...heads.map(([text, tone]) => make("th", { scope: "col", class: tone, text })))),
      make("tbody", null, ...lines));
  }
}
