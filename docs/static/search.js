// Replaces Sphinx's search, which counts no words and finds only pages that have them all. SECTIONS has the text of each
// section and of each row of a list, TITLES the titles of the tree, SAME the words that mean the same to different readers.
// A page's score is BM25 of the page and of its best section, with the likeness of their titles to what was typed.
const SATURATION = 0.5, LENGTH = 0.4, SYNONYM = 0.3, BELOW = 0.8, RESULTS = 20;
const stemmer = new Stemmer(), stemOf = new Map();
const stem = word => stemOf.get(word) ?? stemOf.set(word, stemmer.stemWord(word)).get(word);
const stems = text => splitQuery(text.toLowerCase()).filter(word => !stopwords.has(word)).map(stem);
const sum = numbers => [...numbers].reduce((total, number) => total + number, 0);

const addCounts = (counts, added) => added.forEach((count, word) => counts.set(word, (counts.get(word) ?? 0) + count));
const sections = SECTIONS.map(([page, anchor, heading, text]) => {
  const counts = new Map();
  stems(`${heading} ${text}`).forEach(word => addCounts(counts, new Map([[word, 1]])));
  return { page, anchor, heading, text, counts, titles: [new Set(stems(heading))], size: text.length };
});
const pages = new Map();
for (const section of sections) {
  if (!pages.has(section.page)) {
    const names = [section.page.split("/").pop().replaceAll("-", " "), TITLES[section.page] ?? ""];
    const titles = [...section.titles, ...names.map(name => new Set(stems(name)))];
    pages.set(section.page, { sections: [], counts: new Map(), titles, size: 0 });
  }
  const page = pages.get(section.page);
  page.sections.push(section);
  addCounts(page.counts, section.counts);
  page.size += section.size;
}
const groups = SAME.map(stems), everyWord = new Set([...pages.values()].flatMap(page => [...page.counts.keys()]));
// A word that no page has stands for those that contain it.
const synonyms = word => {
  const same = groups.filter(group => group.includes(word)).flat().filter(other => other !== word);
  return same.length || everyWord.has(word) ? same : [...everyWord].filter(other => other.includes(word));
};
const meanSize = texts => sum(texts.map(text => text.size)) / texts.length;
const sizes = { page: meanSize([...pages.values()]), section: meanSize(sections) };

const scoreOf = words => {
  const weights = new Map(words.map(word => {
    const having = other => [...pages.values()].filter(page => page.counts.has(other)).length;
    return [word, Math.log(1 + pages.size / (0.5 + Math.max(...[word, ...synonyms(word)].map(having))))];
  }));
  const similar = new Map(words.map(word => [word, synonyms(word)]));
  const weigh = (word, factor) => (weights.get(word) ?? Math.log(1 + pages.size)) * factor;
  const total = sum(weights.values());
  const counted = (text, word) => {
    const others = sum(similar.get(word).map(other => text.counts.get(other) ?? 0));
    return (text.counts.get(word) ?? 0) + SYNONYM * others;
  };
  const likeness = title => {
    const shared = word => title.has(word) ? 1 : similar.get(word).some(other => title.has(other)) ? SYNONYM : 0;
    const both = sum(words.map(word => weigh(word, shared(word))));
    return 2 * both / (sum([...title].map(word => weigh(word, 1))) + total) || 0;
  };
  return (text, mean) => {
    const dampened = SATURATION * (1 - LENGTH + LENGTH * text.size / mean);
    const frequency = word => counted(text, word) * (1 + SATURATION) / (counted(text, word) + dampened);
    return sum(words.map(word => weigh(word, frequency(word)))) + total * Math.max(...text.titles.map(likeness));
  };
};

// Pages in a folder, made from the code or of one study each, and the changelog come after guides that are as good.
const isBelow = name => name.includes("/") || name === "changelog";
const resultsOf = words => {
  const score = scoreOf(words);
  const results = [...pages].map(([name, page]) => {
    const scored = page.sections.map(section => [score(section, sizes.section), section]);
    const [points, best] = scored.reduce((first, second) => second[0] > first[0] ? second : first);
    return { best, first: page.sections[0], score: (points + score(page, sizes.page)) * (isBelow(name) ? BELOW : 1) };
  });
  return results.filter(result => result.score > 0).sort((one, two) => two.score - one.score).slice(0, RESULTS);
};

const excerpt = (text, words) => {
  const parts = text.split(" ");
  const start = Math.max(0, parts.findIndex(part => stems(part).some(word => words.includes(word))) - 8);
  const end = start + 32;
  return (start ? "… " : "") + parts.slice(start, end).join(" ") + (end < parts.length ? " …" : "");
};
const showResult = ({ best, first }, words) => {
  const item = Search.output.appendChild(document.createElement("li"));
  const link = item.appendChild(document.createElement("a"));
  link.href = `${best.page}.html${best === first ? "" : `#${best.anchor}`}`;
  link.textContent = best === first ? first.heading : `${first.heading} > ${best.heading}`;
  const context = item.appendChild(document.createElement("p"));
  context.className = "context";
  context.textContent = excerpt(best.text, words);
};
Search.query = query => {
  const words = [...Search._parseQuery(query)[1]];
  const results = resultsOf(words);
  document.getElementById("search-progress")?.replaceChildren();
  Search.stopPulse();
  Search.title.innerText = "Search results";
  Search.status.innerText = results.length ? `The best ${results.length} pages found` : "Your search did not match any page.";
  results.forEach(result => showResult(result, words));
};
