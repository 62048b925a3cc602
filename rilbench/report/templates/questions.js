"use strict";
// A question: [benchmark, id, text, gold, pictures, turns, answers, stem];
// an answer: [score, response, extracted, judge, tokens, ending, gold of its own], or null.
const OUTCOMES = [
  ["all", "All"],
  ["changed", "Changed"],
  ["gained", "Gained"],
  ["lost", "Lost"],
  ["right", "Right in both"],
  ["wrong", "Not right in both"],
  ["missing", "No verdict"],
];
const ALONE = [
  ["all", "All"],
  ["right", "Right"],
  ["wrong", "Not right"],
  ["missing", "No verdict"],
];

function outcomeOf(question, before, after) {
  const now = question[6][after]?.[0];
  const then = before < 0 ? now : question[6][before]?.[0];
  if (now === undefined || now === null || then === undefined || then === null) return "missing";
  if (now !== then) return now > then ? "gained" : "lost";
  return now >= 1 ? "right" : "wrong";
}

class Questions {
  constructor(sets) {
    this.sets = sets;
    this.pages = new Pages(byId("question-list"), byId("question-pager"), (each) => this.build(each));
    fill(byId("set"), sets.map((each, index) => [String(index), each.title]), "0");
    byId("set-field").hidden = sets.length < 2;
    byId("set").addEventListener("change", () => this.choose(Number(byId("set").value)));
    for (const id of ["benchmark", "before", "after"]) {
      byId(id).addEventListener("change", () => this.update());
    }
    byId("outcome").addEventListener("change", () => this.update());
    searches(byId("text"), () => this.update());
    byId("questions").querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    this.choose(0);
  }

  choose(number) {
    this.set = this.sets[number];
    const { columns, benchmarks, questions } = this.set;
    const numbers = questions.reduce((all, q) => ((all[q[0]] = (all[q[0]] ?? 0) + 1), all), {});
    fill(byId("benchmark"), [
      ["", `All (${count(questions.length)})`],
      ...benchmarks.map((name, index) => [String(index), `${name} (${count(numbers[index])})`]),
    ], "");
    const named = columns.map((each, index) => [String(index), this.name(each)]);
    const after = Math.max(0, columns.findIndex((each) => each.role === "after"), columns.findLastIndex((each) => each.role === "base"));
    const others = columns.map((each, index) => index).filter((index) => index !== after && columns[index].role !== "teacher");
    const start = (index) => columns[index].role === "before";
    const before = others.find((index) => start(index) && columns[index].subject === columns[after].subject) ?? others.find(start) ?? others[0] ?? -1;
    fill(byId("before"), [["-1", "nothing"], ...named], String(before));
    fill(byId("after"), named, String(after));
    this.update();
  }

  name(column) {
    return column.role === "teacher" || this.set.columns.some((each) => each.subject)
      ? column.label
      : `${column.label} (${column.role})`;
  }

  short(column) {
    const alone = this.set.columns.every((each) => each.role !== column.role || each === column);
    return alone && column.role !== "teacher" ? column.role : column.label;
  }

  haystack(question) {
    question.words ??= [question[1], question[2], question[3], ...question[6].flatMap((each) => each?.[1] ?? [])]
      .join("\n")
      .toLowerCase();
    return question.words;
  }

  update() {
    const before = Number(byId("before").value);
    const after = Number(byId("after").value);
    const benchmark = byId("benchmark").value;
    const text = byId("text").value.trim().toLowerCase();
    const within = this.set.questions.filter(
      (each) =>
        (benchmark === "" || each[0] === Number(benchmark)) &&
        (text === "" || this.haystack(each).includes(text))
    );
    const outcomes = new Map(within.map((each) => [each, outcomeOf(each, before, after)]));
    const numbers = { all: within.length, changed: 0 };
    for (const each of outcomes.values()) {
      numbers[each] = (numbers[each] ?? 0) + 1;
      if (each === "gained" || each === "lost") numbers.changed += 1;
    }
    const wanted = this.segments(before < 0 ? ALONE : OUTCOMES, numbers);
    const shown = within.filter((each) => {
      const outcome = outcomes.get(each);
      return wanted === "all" || outcome === wanted || (wanted === "changed" && (outcome === "gained" || outcome === "lost"));
    });
    byId("question-status").textContent =
      `${count(shown.length)} of ${count(this.set.questions.length)} questions`;
    this.pages.show(shown);
  }

  segments(choices, numbers) {
    const box = byId("outcome");
    const old = box.querySelector("input:checked")?.value ?? "all";
    const wanted = choices.some(([value]) => value === old) ? old : "all";
    const names = choices.map(([value]) => value).join();
    if (box.dataset.names !== names) {
      box.dataset.names = names;
      box.replaceChildren(
        box.querySelector("legend"),
        ...choices.map(([value, text]) =>
          make("label", null,
            make("input", { type: "radio", name: "outcome", value, checked: value === wanted }),
            make("span", { text: `${text} ` }, make("b")))
        )
      );
    }
    for (const input of box.querySelectorAll("input")) {
      input.nextSibling.querySelector("b").textContent = count(numbers[input.value] ?? 0);
    }
    return wanted;
  }

  build(question) {
    const [benchmark, id, text, gold, pictures, turns, answers, stem] = question;
    const { columns, benchmarks, note } = this.set;
    const turned = turns > 1 ? ` · asked in ${turns} rotations` : "";
    const head = [
      thumbnail(pictures),
      make("span", null,
        make("span", { class: "meta" }, make("b", { text: benchmarks[benchmark] }), ` ${id}${turned}`),
        make("span", { class: "asked", text: stem || text || "(the question’s text is missing)" })),
      make("span", { class: "chips" }, ...columns.map((each, index) => chip(this.short(each), answers[index]?.[0]))),
    ];
    const detail = () => [
      shots(pictures, note ? "The picture is missing: the questions’ folder is gone." : "No picture."),
      make("dl", { class: "pair" },
        make("dt", { text: "question" }), make("dd", null, make("p", { class: "said", text: text || "missing" })),
        make("dt", { text: "gold" }), make("dd", null, make("p", { class: "said gold", text: gold || "–" }))),
      make("div", { class: "answers" }, ...columns.map((each, index) => this.answer(each, answers[index]))),
    ];
    return { head, detail };
  }

  answer(column, answer) {
    const card = make("article", { class: "answer", style: `border-top-color: ${column.colour}` },
      make("header", null, make("h4", { text: column.label }), chip("", answer?.[0])));
    if (!answer) {
      card.append(make("p", { class: "facts-line", text: "not asked" }));
      return card;
    }
    const [, response, extracted, judge, tokens, ending, gold] = answer;
    const facts = [
      extracted !== null && `read as ${extracted || "nothing"}`,
      judge !== null && `judged by ${judge}`,
      tokens !== null && `${count(tokens)} tokens`,
      ending !== null && `ended: ${ending}`,
      gold !== null && `gold for this model: ${gold}`,
    ];
    card.append(
      make("p", { class: "said", text: response || "(an empty response)" }),
      make("p", { class: "facts-line", text: facts.filter(Boolean).join(" · ") })
    );
    return card;
  }
}
