// Mermaid's own reading of diagrams, for tests: a line of JSON in, a line of JSON out, until stdin ends.
//
//   in   "stateDiagram-v2\n[*] --> a\n…"
//   out  {"ok": true, "kind": "state" | "flowchart", "states": [[id, [text, …], [class, …]], …],
//         "edges": [[from, to, label], …]}    or    {"ok": false, "error": "…"}
//
// In state diagrams `[*]` is a start in `from` and an end in `to`. The first text of a state is its name where it has
// an alias; the last one of a node is what stands in its brackets.

import { createInterface } from "node:readline";
import { JSDOM } from "jsdom";

// Mermaid cleans texts by means of a browser's document, and its log would go where answers go.
const { window } = new JSDOM("<!doctype html><body></body>");
Object.assign(globalThis, { window, document: window.document });
const { default: mermaid } = await import("mermaid");
mermaid.initialize({ startOnLoad: false, logLevel: "fatal" });

const POINTS = { root_start: "[*]", root_end: "[*]" };
const field = window.document.createElement("textarea");

// What a reader would see: cleaned texts are HTML.
function shown(text) {
  field.innerHTML = text ?? "";
  return field.value;
}

// What is drawn, not what was declared: the nodes of the picture, but for start, end and notes.
function ofState(db) {
  const nodes = db.getData().nodes.filter(({ id, shape }) => !(id in POINTS) && !/^note/.test(shape));
  return {
    kind: "state",
    states: nodes.map(({ id, label, cssClasses }) => [
      id,
      [label].flat().map(shown),
      cssClasses.split(" ").filter((word) => word && word !== "statediagram-state"),
    ]),
    edges: db.getRelations().map(({ id1, id2, relationTitle }) => [
      id1 === "root_start" ? "[*]" : id1,
      id2 === "root_end" ? "[*]" : id2,
      shown(relationTitle),
    ]),
  };
}

function ofFlowchart(db) {
  return {
    kind: "flowchart",
    states: [...db.getVertices().values()].map(({ id, text, classes }) => [id, [shown(text)], classes]),
    edges: db.getEdges().map(({ start, end, text }) => [start, end, shown(text)]),
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { db } = await mermaid.mermaidAPI.getDiagramFromText(JSON.parse(line));
    answer = { ok: true, ...(db.getRelations ? ofState(db) : ofFlowchart(db)) };
  } catch (error) {
    answer = { ok: false, error: String(error?.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
