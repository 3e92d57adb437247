/** The little Markdown that cards are written in: headings, tables, lists, paragraphs, code. Text goes in as text. */

import type { ComponentChildren } from "preact";

function inline(text: string): ComponentChildren[] {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part, i) => {
    if (part.startsWith("`")) return <code key={i}>{part.slice(1, -1)}</code>;
    return part.startsWith("**") ? <strong key={i}>{part.slice(2, -2)}</strong> : part;
  });
}

const cells = (line: string): string[] => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim().replace(/^([<>]=) /, "$1\u00a0"));

export function Markdown({ text }: { text: string }) {
  const blocks = text.trim().split(/\n{2,}/);
  return (
    <div class="card">
      {blocks.map((block, i) => {
        const lines = block.split("\n");
        if (block.startsWith("# ")) return null;
        if (block.startsWith("## ")) return <h3 key={i}>{inline(block.slice(3))}</h3>;
        if (block.startsWith("|")) {
          const [head, , ...rows] = lines.map(cells);
          return (
            <div key={i} class="scroll"><table>
              <thead><tr>{head?.map((cell, k) => <th key={k}>{inline(cell)}</th>)}</tr></thead>
              <tbody>{rows.map((row, k) => <tr key={k}>{row.map((cell, n) => <td key={n}>{inline(cell)}</td>)}</tr>)}</tbody>
            </table></div>
          );
        }
        if (lines.every((line) => /^(- |  )/.test(line))) return <ul key={i}>{block.split(/^- /m).filter(Boolean).map((line, k) => <li key={k}>{inline(line)}</li>)}</ul>;
        return <p key={i}>{inline(lines.join(" "))}</p>;
      })}
    </div>
  );
}
