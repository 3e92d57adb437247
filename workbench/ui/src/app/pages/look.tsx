/** Look: a prompt through the lens, where each head attends, what each head writes, and what comes next. */

import { useEffect, useMemo, useState } from "preact/hooks";
import type { BarsView, GridView, HeatView } from "../../draw/specs";
import { bytes, post } from "../api";
import { useEpoch, useKept, useWork } from "../hooks";
import { ModelChoice, type Examples } from "../parts/model";
import { Field, Figure, Progress, Title, Trouble } from "../parts/shown";

interface Seen {
  tokens: string[];
  layers: number;
  views: { lens: GridView; next: BarsView; norms?: HeatView };
  code: Record<string, string>;
  without: Record<string, string>;
}

interface Attention {
  tokens: string[];
  heads: number;
  data: string;
  code: string;
}

/** The code is that of head 0; its number is the last argument, and a prompt may hold the same characters. */
function withHead(code: string, head: number): string {
  const at = code.lastIndexOf(", 0)");
  return `${code.slice(0, at)}, ${head})${code.slice(at + 4)}`;
}

export function Look() {
  const [examples, setExamples] = useState<Examples | null>(null);
  const [prompt, setPrompt] = useKept("look.prompt", "");
  const [asked, ask] = useState("");
  const [seen, setSeen] = useState<Seen | null>(null);
  const [[layer, head], setHead] = useKept<[number, number]>("look.head", [0, 0]);
  const [pattern, setPattern] = useState<Attention | null>(null);
  const epoch = useEpoch();
  const [looking, attending] = [useWork(), useWork()];
  const model = examples?.summary.name;

  const opened = (found: Examples): void => {
    if (found.summary.name !== model) {
      setPrompt(found.clean);
      setSeen(null);
      setPattern(null);
    }
    setHead([Math.min(layer, Math.max(0, found.summary.layers - 1)), head]);
    setExamples(found);
    ask(found.summary.name !== model ? found.clean : prompt);
  };
  useEffect(() => {
    if (!model || !asked) return;
    looking.start(async (signal) => {
      const said = await post<Seen>("/api/look", { model, prompt: asked }, signal);
      if (!signal.aborted) setSeen(said);
    });
  }, [model, asked, epoch]);
  useEffect(() => {
    if (!model || !asked) return;
    attending.start(async (signal) => {
      const said = await post<Attention>("/api/look/attention", { model, prompt: asked, layer }, signal);
      if (!signal.aborted) setPattern(said);
    });
  }, [model, asked, layer, epoch]);

  const heads = pattern?.heads ?? 1;
  const shown = Math.min(head, heads - 1);
  const attention = useMemo((): HeatView | null => {
    if (!pattern) return null;
    const [size, data] = [pattern.tokens.length, bytes(pattern.data)];
    const names = pattern.tokens.map((token, i) => `${i} ${token.trim() || token}`);
    const values = names.map((_, q) => names.map((_, k) => Math.round(((data[(shown * size + q) * size + k] ?? 0) / 255) * 1000) / 1000));
    return { kind: "heat", values, x: names, y: names, x_title: "looked at", y_title: "from", title: `Attention of layer ${layer}, head ${shown}`, diverging: false, marks: [], value_title: "attention", low: 0, high: 1 };
  }, [pattern, shown]);

  return (
    <>
      <Title name="Look">What a model would say if it stopped after each layer, where its heads attend, and how much each of them writes.</Title>
      <ModelChoice page="look" text prefer={["organism:two-hop", "organism:ioi"]} onOpen={opened} />
      <form class="row" onSubmit={(e) => (e.preventDefault(), ask(prompt))}>
        <Field name="prompt" wide><input value={prompt} spellcheck={false} onInput={(e) => setPrompt(e.currentTarget.value)} /></Field>
        <button type="submit" class="main" disabled={!model || !prompt}>Look</button>
        {looking.busy && <Progress what="looking" />}
      </form>
      <Trouble problem={looking.problem ?? (seen && !seen.without.norms ? attending.problem : null)} />
      {seen && !looking.problem && (
        <div class="figures">
          <Figure spec={seen.views.lens} code={seen.code.lens} />
          <div class="pair">
            <Figure spec={seen.views.next} code={seen.code.next} />
            {seen.views.norms
              ? (
                <div>
                  <Figure spec={seen.views.norms} code={seen.code.norms} onMark={(i) => {
                    const width = seen.views.norms?.x.length ?? 1;
                    setHead([Math.floor(i / width), i % width]);
                  }} />
                  <p class="hint">Choose a cell to see where that head attends.</p>
                </div>
              )
              : <p class="soft">{seen.without.norms}</p>}
          </div>
          {attention && (
            <div>
              <div class="row">
                <Field name="layer"><input type="number" min={0} max={seen.layers - 1} value={layer} onInput={(e) => setHead([Math.max(0, Math.min(seen.layers - 1, Number(e.currentTarget.value) || 0)), head])} /></Field>
                <Field name="head"><input type="number" min={0} max={heads - 1} value={shown} onInput={(e) => setHead([layer, Math.max(0, Math.min(heads - 1, Number(e.currentTarget.value) || 0))])} /></Field>
              </div>
              <Figure spec={attention} code={pattern ? withHead(pattern.code, shown) : undefined} />
            </div>
          )}
        </div>
      )}
    </>
  );
}
