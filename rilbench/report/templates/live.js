"use strict";
// Only on pages that `rilbench view` serves: questions on demand, and runs while they train.
async function askQuestions(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(await answer.text());
  const value = await answer.json();
  pictureUrls = value.pictures;
  for (const [id, found] of [["questions", value.sets], ["groups", value.runs]]) {
    for (const each of [byId(id), document.querySelector(`nav a[href="#${id}"]`)]) each.hidden = !found.length;
  }
  return value;
}

function followRuns(address) {
  let version = "";
  const look = async () => {
    const answer = await fetch(`${address}&since=${version}`).catch(() => null);
    if (answer?.status === 200) {
      const { version: now, specs } = await answer.json();
      const places = [...document.querySelectorAll("#training .plot")];
      if (places.length !== specs.length) location.reload();
      if (version) {
        places.forEach((place, index) => {
          specOf(place);
          chartSpecs[Number(place.dataset.chart)] = specs[index];
          if (place.drawn) window.vegaEmbed(place, specs[index], chartOptions);
        });
      }
      version = now;
    } else if (answer?.status === 410) {
      location.reload(); // A run has ended: what it left is on the new page.
      return;
    }
    setTimeout(look, 3000);
  };
  look();
}
