// Adds to Sphinx's score how well the title of a page, or the name of its file, is what was typed.
const typed = new URLSearchParams(location.search).get("q") || "";
const stemsOf = text => (text.toLowerCase().match(/[a-z0-9_]+/g) || []).map(word => new Stemmer().stemWord(word));
const likeness = text => {
  const wanted = new Set(stemsOf(typed)), there = new Set(stemsOf(text));
  const both = [...wanted].filter(stem => there.has(stem)).length;
  return wanted.size ? 2 * both / (wanted.size + there.size) : 0;
};
var Scorer = {
  score: ([docname, title, , , score]) =>
    score + 60 * Math.max(likeness(title.split(" > ")[0]), likeness(docname.split("/").pop())),
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
