/** Models: open one from a folder or the hub, and see its sites and its modules. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { post } from "../api";
import { useEpoch, useKept, useWork } from "../hooks";
import { ModelChoice, type Examples, type Summary } from "../parts/model";
import { Code, Field, Progress, Title, Trouble } from "../parts/shown";

interface Module {
  name: string;
  class: string;
  parameters: number;
}
interface SiteRow {
  site: string;
  shape: string;
  verbs: string[];
  note: string;
}
interface Inside {
  summary: Summary;
  modules: Module[];
  more: number;
  sites: SiteRow[];
  code: string;
  /** The lines that run the model on inputs of its own, with SITE for what is read. */
  reading: string;
}
interface Node extends Module {
  own: string;
  children: Node[];
}

function tree(modules: Module[]): Node[] {
  const roots: Node[] = [];
  const known = new Map<string, Node>();
  for (const module of modules) {
    const cut = module.name.lastIndexOf(".");
    const node: Node = { ...module, own: module.name.slice(cut + 1), children: [] };
    known.set(module.name, node);
    (known.get(module.name.slice(0, Math.max(0, cut)))?.children ?? roots).push(node);
  }
  return roots;
}

const count = (n: number): string => (n >= 1e9 ? `${(n / 1e9).toFixed(2)} B` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} M` : n >= 1e3 ? `${(n / 1e3).toFixed(0)} k` : String(n));

export function Models() {
  const [inside, setInside] = useState<Inside | null>(null);
  const [model, setModel] = useState("");
  const [chosen, choose] = useState("");
  const [filter, setFilter] = useKept("models.filter", "");
  const epoch = useEpoch();
  const { busy, problem, start } = useWork();
  useEffect(() => {
    if (model) start(async (signal) => {
      const found = await post<Inside>("/api/models/inside", { model }, signal);
      if (signal.aborted) return;
      setInside(found);
      choose("");
    });
  }, [model, epoch]);
  const roots = useMemo(() => tree(inside?.modules ?? []), [inside]);
  const sites = (inside?.sites ?? []).filter((row) => row.site.includes(filter));
  const code = chosen && inside ? inside.reading.replaceAll("SITE", JSON.stringify(chosen)) : inside?.code ?? "";

  const branch = (nodes: Node[], open: boolean) => (
    <ul>
      {nodes.map((node) => {
        const site = `module[${JSON.stringify(node.name)}].output`;
        const name = <button type="button" class="leaf" aria-pressed={chosen === site} onClick={() => choose(site)}>{node.own} <small>{node.class}, {count(node.parameters)}</small></button>;
        return <li key={node.name}>{node.children.length ? <details open={open}><summary>{name}</summary>{branch(node.children, false)}</details> : name}</li>;
      })}
    </ul>
  );
  return (
    <>
      <Title name="Models">Open a folder, a hub id or an organism. Every place that can be read or changed has a name: choose one to take it along.</Title>
      <ModelChoice page="models" prefer={["organism:two-hop", "organism:ioi"]} onOpen={(found: Examples) => setModel(found.summary.name)} />
      <Trouble problem={problem} />
      {busy && <Progress what="looking inside" />}
      {inside && (
        <>
          <p class="facts">
            <strong>{inside.summary.class}</strong>, {inside.summary.family} map, {inside.summary.layers} layers, {count(inside.summary.parameters)} parameters, {inside.summary.dtype} on {inside.summary.device}
          </p>
          <div class="taken" aria-live="polite">
            {chosen && <p>Chosen: <code>{chosen}</code></p>}
            <Code text={code} />
          </div>
          <div class="split wide">
            <section aria-label="Sites">
              <h2>Sites</h2>
              <Field name="only those with" wide><input value={filter} placeholder="attn" spellcheck={false} onInput={(e) => setFilter(e.currentTarget.value)} /></Field>
              <div class="scroll tall"><table>
                <thead><tr><th>site</th><th>shape</th><th>verbs</th></tr></thead>
                <tbody>{sites.map((row) => (
                  <tr key={row.site} class={row.verbs.length ? "" : "refused"}>
                    <td><button type="button" class="leaf" disabled={!row.verbs.length} aria-pressed={chosen === row.site} onClick={() => choose(row.site)}>{row.site}</button></td>
                    <td class="shape">{row.shape}</td><td title={row.note}>{row.verbs.join(" ") || row.note}</td>
                  </tr>
                ))}</tbody>
              </table></div>
              {!sites.length && <p class="soft">No site has “{filter}” in its name.</p>}
              <p class="hint">Shapes: b rows of a batch, p tokens, then heads and widths. Grey sites are refused, with the reason.</p>
            </section>
            <section aria-label="Modules" class="tree">
              <h2>Modules</h2>
              {branch(roots, true)}
              {inside.more > 0 && <p class="soft">and {inside.more} more</p>}
            </section>
          </div>
        </>
      )}
    </>
  );
}
