/** Patch: two prompts, and which single value of the one's run turns the other's answer. */

import { useEffect, useState } from "preact/hooks";
import type { HeatView, TableView } from "../../draw/specs";
import { post } from "../api";
import { streaming, useEpoch, useKept, useWork } from "../hooks";
import { ModelChoice, type Examples } from "../parts/model";
import { Field, Figure, Progress, Title, Trouble } from "../parts/shown";

type What = "position" | "head";
interface Pair {
  tokens: string[];
  changed: number[];
  words: [string, string];
  metric: string;
}
interface Map {
  what: What;
  view: HeatView;
  code: string;
}
interface Cell {
  view: TableView;
  code: string;
}

export function Patch() {
  const [examples, setExamples] = useState<Examples | null>(null);
  const [texts, setTexts] = useKept("patch.texts", { clean: "", other: "", answer: "", other_answer: "" });
  const [pair, setPair] = useState<Pair | null>(null);
  const [without, setWithout] = useState("");
  const [maps, setMaps] = useState<Partial<Record<What, Map>>>({});
  const [done, setDone] = useState<{ what: What; done: number; of: number } | null>(null);
  const [cell, setCell] = useState<Cell | null>(null);
  const epoch = useEpoch();
  const [patching, opening] = [useWork(), useWork()];
  const model = examples?.summary.name;

  const run = (given = texts, name = model): void => {
    setCell(null);
    setMaps({});
    setWithout("");
    patching.start(streaming("/api/patch", { model: name, ...given }, (event, data) => {
      if (event === "pair") setPair(data as Pair);
      if (event === "without") setWithout((data as { why: string }).why);
      if (event === "progress") setDone(data as { what: What; done: number; of: number });
      if (event === "map") setMaps((before) => ({ ...before, [(data as Map).what]: data as Map }));
    }));
  };
  const opened = (found: Examples): void => {
    const next = found.summary.name !== model && (model || !texts.clean) ? { clean: found.clean, other: found.other, answer: "", other_answer: "" } : texts;
    setTexts(next);
    setExamples(found);
    run(next, found.summary.name);
  };
  useEffect(() => {
    if (epoch && model) run();
  }, [epoch]);

  const open = (what: What, index: number): void => {
    const width = maps[what]?.view.x.length ?? 1;
    opening.start(async (signal) => {
      const body = { model, ...texts, what, layer: Math.floor(index / width), index: index % width };
      const said = await post<Cell>("/api/patch/cell", body, signal);
      if (!signal.aborted) setCell(said);
    });
  };
  const text = (key: keyof typeof texts, name: string, wide = true) => (
    <Field name={name} wide={wide}>
      <input value={texts[key]} spellcheck={false} placeholder={key.includes("answer") ? "the model's own" : ""} onInput={(e) => setTexts({ ...texts, [key]: e.currentTarget.value })} />
    </Field>
  );

  return (
    <>
      <Title name="Patch">
        Run the clean prompt with one value taken from the other prompt's run. Where the answer falls, that value carries what the two prompts differ in.
      </Title>
      <ModelChoice page="patch" text prefer={["organism:two-hop", "organism:ioi"]} onOpen={opened} />
      <form onSubmit={(e) => (e.preventDefault(), run())}>
        <div class="prompts">
          {text("clean", "clean prompt")}{text("answer", "its answer", false)}
          {text("other", "other prompt")}{text("other_answer", "its answer", false)}
        </div>
        <div class="row">
          <button type="submit" class="main" disabled={!model || !texts.clean || !texts.other}>Patch</button>
          {patching.busy && <button type="button" onClick={patching.cancel}>Stop</button>}
        </div>
      </form>
      {patching.busy && (done ? <Progress what={done.what === "position" ? "layer by token" : "layer by head"} done={done.done} of={done.of} /> : <Progress what="running both prompts" />)}
      <Trouble problem={patching.problem ?? opening.problem} />
      {pair && !patching.problem && <p class="soft">Measured: how far the {pair.metric} falls. Above zero, the patched value works for the clean answer. Choose a cell to open its run.</p>}
      <div class="figures">
        <div class="pair">
          {(["position", "head"] as const).map((what) => {
            const map = maps[what];
            return map && <Figure key={what} spec={map.view} code={map.code} onMark={(index) => open(what, index)} />;
          })}
          {without && <p class="soft">{without}</p>}
        </div>
        {cell && <div aria-live="polite" class="cell"><Figure spec={cell.view} code={cell.code} /></div>}
      </div>
    </>
  );
}
