/** Steer: a direction from two sets of texts, or one that is known, added while the model writes, beside the untouched text. */

import { useEffect, useState } from "preact/hooks";
import type { BarsView } from "../../draw/specs";
import { streaming, useEpoch, useKept, useWork } from "../hooks";
import { DirectionChoice, type Known, type Source } from "../parts/direction";
import { ModelChoice, type Examples } from "../parts/model";
import { Code, Field, Figure, Progress, Title, Trouble } from "../parts/shown";
import { Words, type Word } from "../parts/words";

interface Off {
  view: BarsView;
  mean: number;
  code: string;
}

interface Length {
  norm: number;
  state: number;
}

/** As far as the slider goes: four times the direction, and at least twice the length of a state. */
function reach({ norm, state }: Length): number {
  const wanted = norm > 0 ? (2 * state) / norm : 4;
  return wanted <= 4 ? 4 : Math.min(1000, 10 ** Math.ceil(Math.log10(wanted)));
}

const lines = (text: string): string[] => text.split("\n").map((one) => one.trim()).filter(Boolean);
const plain = (text: string): Word => ({ text, regions: [], mass: new Uint8Array(), aim: "" });

export function Steer() {
  const [examples, setExamples] = useState<Examples | null>(null);
  const [texts, setTexts] = useKept("steer.texts", { prompt: "", plus: "", minus: "", others: "" });
  const [layer, setLayer] = useKept("steer.layer", 0);
  const [strength, setStrength] = useKept("steer.strength", 1);
  const [words, setWords] = useKept("steer.words", 12);
  const [said, setSaid] = useState<{ steered: Word[]; untouched: Word[] }>({ steered: [], untouched: [] });
  const [off, setOff] = useState<Off | null>(null);
  const [code, setCode] = useState("");
  const [source, setSource] = useKept<Source>("steer.source", { kind: "texts", name: "", file: "" });
  const [length, setLength] = useState<Length | null>(null);
  const epoch = useEpoch();
  const { busy, problem, start, cancel } = useWork();
  const model = examples?.summary.name;
  const last = Math.max(0, (examples?.summary.layers ?? 1) - 1);
  const most = length ? Math.max(reach(length), Math.abs(strength)) : 4;

  const clear = (): void => {
    cancel();
    setSaid({ steered: [], untouched: [] });
    setOff(null);
    setCode("");
    setLength(null);
  };
  const opened = (found: Examples): void => {
    if (found.summary.name !== model && (model || !texts.prompt)) {
      setTexts({ prompt: found.clean, plus: found.other, minus: found.clean, others: found.off.join("\n") });
      setLayer(Math.max(0, found.summary.layers - 1));
      setWords(found.words);
    }
    if (found.summary.name !== model && model) {
      clear();
      setSource({ ...source, name: "" });
    }
    setExamples(found);
  };
  const choose = (next: Source, known: Known | null): void => {
    if (next.kind !== source.kind || next.name !== source.name || next.file !== source.file) {
      setStrength(1);
      clear();
    }
    if (known && known.layer !== null && (next.name !== source.name || next.file !== source.file)) setLayer(known.layer);
    setSource(next);
  };
  useEffect(() => {
    if (!model || !texts.prompt || (source.kind === "known" && !source.name)) return;
    // the slider may move while an answer is on its way: the latest place counts
    const timer = setTimeout(() => {
      setOff(null);
      const direction = source.kind === "known" ? { known: source.name, file: source.file || null } : { plus: lines(texts.plus), minus: lines(texts.minus) };
      let [steered, untouched]: [Word[], Word[]] = [[], []];
      const body = { model, prompt: texts.prompt, ...direction, layer: Math.min(layer, last), strength, words, others: lines(texts.others) };
      start(streaming("/api/steer", body, (event, data) => {
        if (event === "start") {
          setCode((data as { code: string }).code);
          setLength(data as Length);
        }
        if (event === "word") {
          const { side, text } = data as { side: string; text: string };
          if (side === "steered") steered = [...steered, plain(text)];
          else untouched = [...untouched, plain(text)];
          setSaid({ steered, untouched });
        }
        if (event === "off") setOff(data as Off);
      }));
    }, 120);
    return () => clearTimeout(timer);
  }, [model, texts, layer, strength, words, source, epoch]);

  const area = (key: keyof typeof texts, name: string, rows = 2) => (
    <Field name={name} wide>
      <textarea rows={rows} value={texts[key]} spellcheck={false} onChange={(e) => setTexts({ ...texts, [key]: e.currentTarget.value })} />
    </Field>
  );
  return (
    <>
      <Title name="Steer">A direction is the difference between two texts behind a layer, or one that is known. Add it, more or less of it, and read what the model writes instead.</Title>
      <ModelChoice page="steer" text prefer={["organism:two-hop", "organism:ioi"]} onOpen={opened} />
      <DirectionChoice model={model ?? ""} source={source} choose={choose} />
      {source.kind === "texts" && <div class="row">{area("plus", "towards (a text on each line)")}{area("minus", "away from (a text on each line)")}</div>}
      <div class="row">
        {area("prompt", "prompt", 1)}
        <Field name="tokens"><input type="number" min={1} max={256} value={words} onChange={(e) => setWords(Math.max(1, Math.min(256, Number(e.currentTarget.value) || 1)))} /></Field>
      </div>
      <div class="row ranges">
        <Field name={`behind layer ${Math.min(layer, last)}`}><input type="range" min={0} max={last} value={Math.min(layer, last)} onInput={(e) => setLayer(Number(e.currentTarget.value))} /></Field>
        <Field name={`strength ${strength.toFixed(2)}${length ? `, ${Math.round((100 * Math.abs(strength) * length.norm) / length.state)} % of a state` : ""}`} wide>
          <input type="range" min={-most} max={most} step={most / 80} value={strength} list="nothing" onInput={(e) => setStrength(Number(e.currentTarget.value))} />
        </Field>
        <datalist id="nothing"><option value="0" /></datalist>
        {busy && <button type="button" onClick={cancel}>Stop</button>}
      </div>
      {length && <p class="hint" data-norm={length.norm}>The direction has length {length.norm.toPrecision(3)}; states behind this layer have length {length.state.toPrecision(3)}. Strength 1 adds it once.</p>}
      <Trouble problem={problem} />
      <div class="pair">
        <Words name="Steered" words={said.steered} live onWord={() => undefined} />
        <Words name="Untouched" words={said.untouched} onWord={() => undefined} />
      </div>
      {code && <Code text={code} />}
      <div class="pair below">
        {area("others", "texts that should not change", 4)}
        {off ? <div><Figure spec={off.view} code={off.code} /><p class="soft" data-kl={off.mean}>On average these move by {off.mean.toPrecision(3)} nats; 0 is not at all.</p></div> : busy ? <Progress what="measuring other texts" /> : <div />}
      </div>
    </>
  );
}
