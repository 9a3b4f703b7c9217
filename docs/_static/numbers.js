// What is typed into the search can be a number: see searching.py, which has numbers in
// the index. Sphinx's own script drops them from the question.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return; // Only the page of results has it.
  const parse = Search._parseQuery;
  Search._parseQuery = query => {
    const parsed = parse(query);
    const [, terms] = parsed;
    for (const number of query.match(/\b\d{3,}\b/g) ?? []) terms.add(number);
    return parsed;
  };
});
