/** The choice of a direction: made from two sets of texts, or one that is known, of an organism's truth or of a safetensors file. */

import { useEffect, useState } from "preact/hooks";
import { line, post, Problem } from "../api";
import { useEpoch, useWork } from "../hooks";
import { Field, Progress, Trouble, Upload } from "./shown";

export interface Known {
  name: string;
  group: string;
  layer: number | null;
  about: string;
  norm: number;
}

export interface Source {
  kind: "texts" | "known";
  /** The known direction's name. */
  name: string;
  /** The file that it is of, by the name the server knows it by; "" for the truth. */
  file: string;
}

interface Sent {
  file: string;
  called: string;
}

interface Choice {
  model: string;
  source: Source;
  /** Told the source, and the direction where one is known. */
  choose: (source: Source, known: Known | null) => void;
}

/** Files of this visit, so that a server that has forgotten them can be sent them again. */
const files = new Map<string, File>();

export function DirectionChoice({ model, source, choose }: Choice) {
  const [known, setKnown] = useState<Known[]>([]);
  const [sent, setSent] = useState<Sent | null>(null);
  const epoch = useEpoch();
  const [listing, sending] = [useWork(), useWork()];

  const put = async (file: File): Promise<Sent> => {
    if (file.size > line.limit) {
      throw new Problem(`The file has ${(file.size / 2 ** 20).toFixed(1)} MB; ${line.limit / 2 ** 20} MB are taken.`, "Save the directions alone, without the model.");
    }
    const made = await post<Sent>(`/api/steer/file?called=${encodeURIComponent(file.name)}`, new Blob([file], { type: "application/octet-stream" }));
    files.set(made.file, file);
    return made;
  };
  useEffect(() => {
    if (!model || source.kind === "texts") return;
    listing.start(async (signal) => {
      const ask = () => post<Known[]>("/api/steer/known", { model, file: source.file || null }, signal);
      const again = files.get(source.file);
      const list = await ask().catch(async (error: unknown) => {
        if (!again || signal.aborted) throw error;
        await put(again);
        return ask();
      });
      if (signal.aborted) return;
      setKnown(list);
      const found = list.find((one) => one.name === source.name) ?? list[0] ?? null;
      choose({ ...source, name: found?.name ?? "" }, found);
    });
  }, [model, source.kind, source.file, epoch]);

  const pick = (name: string): void => choose({ ...source, name }, known.find((one) => one.name === name) ?? null);
  const send = (file: File): void => sending.start(async () => {
    const made = await put(file);
    setSent(made);
    choose({ kind: "known", name: "", file: made.file }, null);
  });
  const chosen = known.find((one) => one.name === source.name);
  const groups = [...new Set(known.map((one) => one.group))];
  const options = (group: string) => known.filter((one) => one.group === group).map((one) => <option key={one.name} value={one.name}>{one.name}</option>);
  return (
    <>
      <div class="row" role="group" aria-label="Where the direction comes from">
        <div class="switch">
          {(["texts", "known"] as const).map((kind) => (
            <button key={kind} type="button" aria-pressed={source.kind === kind} onClick={() => choose({ ...source, kind }, null)}>{kind === "texts" ? "From two texts" : "Known"}</button>
          ))}
        </div>
        {source.kind === "known" && (
          <>
            <Field name="direction">
              <select class="known" value={source.name} disabled={!known.length} onChange={(e) => pick(e.currentTarget.value)}>
                {groups.map((group) => group ? <optgroup key={group} label={group}>{options(group)}</optgroup> : options(group))}
              </select>
            </Field>
            <Upload accept=".safetensors" send={send}>{source.file ? sent?.called ?? "another file" : "your file (.safetensors)"}</Upload>
            {source.file && <button type="button" class="quiet" onClick={() => choose({ kind: "known", name: "", file: "" }, null)}>the model's own</button>}
          </>
        )}
        {(listing.busy || sending.busy) && <Progress what="reading" />}
      </div>
      <Trouble problem={sending.problem ?? listing.problem} />
      {source.kind === "known" && chosen?.about && <p class="hint">{chosen.name}, {chosen.about}.</p>}
      {source.kind === "known" && !listing.busy && !known.length && !listing.problem && (
        <p class="hint">No direction is known of this model. Take a file of your own: a tensor [d], or [n, d] with a direction in each row.</p>
      )}
    </>
  );
}
