/** Gaze: point at the image, and the text tells what is there. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { HeatView } from "../../draw/specs";
import { bytes, get, line, post, Problem } from "../api";
import { streaming, useEpoch, useKept, useWork } from "../hooks";
import { ModelChoice, type Examples } from "../parts/model";
import { Picture, type Box, type Image, type Target } from "../parts/picture";
import { Code, Field, Figure, Progress, Title, Trouble, Upload } from "../parts/shown";
import { Words, type Word } from "../parts/words";

interface Found {
  view: HeatView;
  ranked: [number, number][];
  best: number;
  shuffled: number | null;
  prompts: { answer: string; narrate: string };
  top: { answer: number; narrate: number };
  words: { answer: number; narrate: number };
  question: string;
  code: string;
}

type Mode = "answer" | "narrate";
type Which = "top" | "random" | "bottom" | "all";
const KINDS: Record<Which, string> = { top: "gaze heads", random: "random heads (control)", bottom: "lowest heads (control)", all: "all heads (control)" };

interface Text {
  words: Word[];
  cells: Box[];
}
const NOTHING: Text = { words: [], cells: [] };

/** A text that is being written: its name, and the targets that it was told, one after the other. */
interface Writing {
  session: string;
  turns: (Target | null)[];
  /** Whether the server knows it by now, so that it can be told where to look. */
  begun: boolean;
}
const named = (): string => [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export function Gaze() {
  const [examples, setExamples] = useState<Examples | null>(null);
  const [images, setImages] = useState<Image[]>([]);
  const [image, setImage] = useKept<Image | null>("gaze.image", null);
  const [grid, setGrid] = useKept<[number, number]>("gaze.grid", [2, 3]);
  const [question, setQuestion] = useKept("gaze.question", "");
  const [found, setFound] = useState<Found | null>(null);
  const [mode, setMode] = useKept<Mode>("gaze.mode", "answer");
  const [which, setWhich] = useKept<Which>("gaze.which", "top");
  const [top, setTop] = useKept("gaze.top", 0);
  const [prompt, setPrompt] = useKept("gaze.prompt", "");
  const [aim, setAim] = useState<{ target: Target | null; pinned: boolean }>({ target: null, pinned: false });
  const [steered, setSteered] = useState<Text>(NOTHING);
  const [plain, setPlain] = useState<Text>(NOTHING);
  const [code, setCode] = useState("");
  const [delay, setDelay] = useState<number | null>(null);
  const [word, setWord] = useState<[Text, number] | null>(null);
  const [sent, setSent] = useState<File | null>(null);
  const now = useRef<Writing | null>(null);
  // heads of a model that knows no comics are found on the image that is shown
  const [perImage, setPerImage] = useState(false);
  const begun = useRef("");
  const sentFor = useRef("");
  const asked = useRef("");
  const plainFor = useRef("");
  const pointed = useRef<{ since: number; text: Writing | null; turn: number }>({ since: 0, text: null, turn: 0 });
  const latest = useRef<Target | null>(null);
  const epoch = useEpoch();
  const [finding, writing, untouched, sending] = [useWork(), useWork(), useWork(), useWork()];
  const model = examples?.summary.name ?? "";
  const heads = found?.ranked.length ?? 0;

  useEffect(() => {
    get<Image[]>("/api/gaze/images").then((list) => {
      setImages(list);
      if (!image && list[0]) setImage(list[0]);
    }, () => undefined);
  }, [epoch]);

  // an image that was sent is sent again to a server that has forgotten it
  const sendFor = `${epoch} ${grid}`;
  useEffect(() => {
    if (sent && sentFor.current !== sendFor) send(sent);
  }, [sendFor]);

  const where = image && { model, image: image.name, rows: grid[0], columns: grid[1], question };

  useEffect(() => {
    if (!where || !model) return;
    setFound(null);
    finding.start(async (signal) => {
      const said = await post<Found>("/api/gaze/heads", where, signal);
      if (signal.aborted) return;
      setFound(said);
      setPerImage(Boolean(said.question));
      if (begun.current === model) return;
      begun.current = model;
      setTop(said.top[mode]);
      setPrompt(said.prompts[mode]);
    });
  }, [examples, Boolean(image), question, perImage ? image?.name : "", perImage ? grid : 0]);
  const opened = (next: Examples): void => {
    if (model && next.summary.name !== model) {
      for (const work of [writing, untouched]) work.cancel();
      setQuestion("");
      setSteered(NOTHING);
      setPlain(NOTHING);
      setCode("");
      setDelay(null);
      plainFor.current = "";
    }
    setExamples(next);
  };

  /** Tell a text where to look now; one that has just ended is told anew. */
  const look = (text: Writing): void => {
    const turn = text.turns.length - 1;
    const target = text.turns[turn] ?? null;
    const { since } = pointed.current;
    post("/api/gaze/look", { session: text.session, target, turn }).catch(() => target && latest.current === target && write(target, since));
  };
  const tell = (to: Writing | null, put: (text: Text) => void) => {
    let text = NOTHING;
    const aim = to ? { target: to.turns[0], which, session: to.session } : { target: null, which: "none" };
    const body = { ...where, prompt, top, ...aim, words: found?.words[mode] ?? 3, pace: to && mode === "narrate" ? 7 : 0 };
    return streaming("/api/gaze/tell", body, (event, data) => {
      if (event === "code" && to) {
        setCode((data as { code: string }).code);
        to.begun = true;
        if (to.turns.length > 1) look(to);
      }
      if (event === "start") {
        text = { words: [], cells: (data as { cells: Box[] }).cells };
        put(text);
      }
      if (event === "word") {
        const said = data as { text: string; mass: string; regions: number[]; turn: number };
        const aimed = to ? JSON.stringify(to.turns[said.turn] ?? null) : "";
        text = { ...text, words: [...text.words, { text: said.text, regions: said.regions, mass: bytes(said.mass), aim: aimed }] };
        put(text);
        if (to && pointed.current.text === to && said.turn >= pointed.current.turn) {
          pointed.current.text = null;
          setDelay(performance.now() - pointed.current.since);
        }
        // what is pointed comes first: the untouched text begins when it has begun
        if (to && plainFor.current !== asked.current) {
          plainFor.current = asked.current;
          untouched.start(tell(null, setPlain));
        }
      }
      if (event === "end" && now.current === to) now.current = null;
    });
  };
  const ready = Boolean(where && found && prompt && top);
  asked.current = JSON.stringify([where, prompt, top, mode, epoch]);
  /** Write anew; `since` is when somebody pointed there, 0 where nobody waits for it. */
  const write = (target: Target | null, since = 0): void => {
    const text = { session: named(), turns: [target], begun: false };
    now.current = text;
    pointed.current = { since, text: since ? text : null, turn: 0 };
    writing.start(tell(text, setSteered));
  };
  useEffect(() => {
    // the pointer may have moved since this was rendered, and somebody may wait for what was broken off
    if (ready) write(latest.current, pointed.current.text ? pointed.current.since : 0);
  }, [ready, image?.name, prompt, top, which, mode, epoch, grid]);

  const point = (target: Target | null, pinned: boolean): void => {
    const moved = JSON.stringify(target) !== JSON.stringify(aim.target);
    setAim({ target, pinned });
    latest.current = target;
    if (!moved || !ready) return;
    const [text, since] = [now.current, target ? performance.now() : 0];
    if (mode === "narrate" && text) {
      const turn = text.turns.push(target) - 1;
      pointed.current = { since, text: target ? text : null, turn };
      if (text.begun) look(text);
    } else write(target, since);
  };
  const show = (next: Image): void => {
    setAim({ target: null, pinned: false });
    latest.current = null;
    setImage(next);
  };
  const send = (file: File): void => {
    sentFor.current = sendFor;
    sending.start(async (signal) => {
      if (file.size > line.limit) {
        const size = (file.size / 2 ** 20).toFixed(1);
        throw new Problem(`The image has ${size} MB; ${line.limit / 2 ** 20} MB are taken.`, "Send a smaller one: models see a few hundred pixels of it.");
      }
      const made = await post<Image>(`/api/gaze/image?rows=${grid[0]}&columns=${grid[1]}`, new Blob([file], { type: file.type || "image/png" }), signal);
      setSent(file);
      show(made);
    });
  };
  const choose = (next: Mode): void => {
    setMode(next);
    if (found) {
      setPrompt(found.prompts[next]);
      setTop(found.top[next]);
    }
  };

  const shown = word ? word[0] : steered;
  const last = shown.words[word ? word[1] : shown.words.length - 1];
  const heat: [Box, number][] = last ? shown.cells.map((cell, i) => [cell, (last.mass[i] ?? 0) / 255]) : [];
  const lookOn = (text: Text) => (index: number | null) => setWord(index === null ? null : [text, index]);
  const map = found && { ...found.view, marks: which === "top" ? found.ranked.slice(0, top) : [], title: "How much each head looks at what is asked for", value_title: "share of attention" };

  return (
    <>
      <Title name="Point, and it tells">
        Some heads of a vision-language model look at the part of the image that is about to be described. Point at the image: those heads are made
        to look there, and the description follows. Not a word of the prompt changes.
      </Title>
      <ModelChoice page="gaze" prefer={["organism:comics"]} onOpen={opened} />
      <Trouble problem={finding.problem} />
      <Trouble problem={sending.problem} />
      <Trouble problem={writing.problem} again={() => write(aim.target)} />
      <div class="gaze">
        <div class="stage">
          {image && <Picture image={image} target={aim.target} pinned={aim.pinned} heat={heat} point={point} />}
          <p class="hint">Hover a region, click to keep it, drag a box. Keys: 1 to {image?.regions.length ?? 6}, Escape. Yellow is where the heads look, the stronger the more.</p>
          <div class="thumbs" role="group" aria-label="Images">
            {images.map((one, i) => (
              <button key={one.name} type="button" aria-pressed={one.name === image?.name} aria-label={`image ${i + 1}`} onClick={() => show(one)}>
                <img src={one.image} alt="" />
              </button>
            ))}
            <Upload accept="image/png,image/jpeg,image/webp" send={send}>your image</Upload>
          </div>
          {image?.name.startsWith("sent:") && (
            <div class="row">
              <Field name="rows"><input type="number" min={1} max={8} value={grid[0]} onChange={(e) => setGrid([Number(e.currentTarget.value) || 1, grid[1]])} /></Field>
              <Field name="columns"><input type="number" min={1} max={8} value={grid[1]} onChange={(e) => setGrid([grid[0], Number(e.currentTarget.value) || 1])} /></Field>
            </div>
          )}
        </div>
        <div class="told">
          <div class="row" role="group" aria-label="What to write">
            <div class="switch">
              {(["answer", "narrate"] as const).map((one) => (
                <button key={one} type="button" aria-pressed={mode === one} onClick={() => choose(one)}>{one === "answer" ? "Answer" : "Narrate"}</button>
              ))}
            </div>
            {mode === "narrate" && (writing.busy
              ? <button type="button" onClick={writing.cancel}>Stop</button>
              : <button type="button" disabled={!ready} onClick={() => write(aim.target)}>Tell again</button>)}
            <span class="soft delay" role="status" data-delay={delay ?? undefined}>{delay === null ? "" : `first word ${Math.round(delay)} ms after pointing`}</span>
          </div>
          {finding.busy && <Progress what="finding the heads that look at what is described" />}
          <Words name="Pointed" words={steered.words} live onWord={lookOn(steered)} note={aim.target ? (aim.pinned ? "kept there" : "") : "nowhere in particular"} />
          <Words name="Untouched" words={plain.words} onWord={lookOn(plain)} note="the same prompt, no head moved" />
          <p class="hint">A word has the colour of the region that the heads look at while it is chosen. Go over one to see where that is.</p>
          <div class="row">
            <Field name={`${which === "all" ? heads : top} of ${heads || "…"} heads`}>
              <input type="range" min={1} max={Math.max(1, heads)} value={top} disabled={!found || which === "all"} onInput={(e) => setTop(Number(e.currentTarget.value))} />
            </Field>
            <Field name="which">
              <select value={which} onChange={(e) => setWhich(e.currentTarget.value as Which)}>
                {(Object.keys(KINDS) as Which[]).map((one) => <option key={one} value={one}>{KINDS[one]}</option>)}
              </select>
            </Field>
          </div>
          <Field name="prompt" wide><input value={prompt} spellcheck={false} onChange={(e) => setPrompt(e.currentTarget.value)} /></Field>
          {(found?.question || question) && (
            <Field name="the question that finds the heads, with {} for the number of the panel" wide>
              <input class="question" value={question || found?.question} spellcheck={false} onChange={(e) => setQuestion(e.currentTarget.value)} />
            </Field>
          )}
          {code && <Code text={code} />}
        </div>
      </div>
      {map && found && (
        <div class="below">
          <Figure spec={map} code={found.code} />
          <p class="soft">
            A frame marks the heads that are moved. The best head gives {Math.round(100 * found.best)} % of its attention to the region that is asked for
            {found.shuffled === null ? "." : `; with shuffled labels the best is ${Math.round(100 * found.shuffled)} %.`}
          </p>
        </div>
      )}
    </>
  );
}
