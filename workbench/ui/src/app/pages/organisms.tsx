/** Organisms: small models whose inside is known, each with its card and its truth. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { Spec } from "../../draw/specs";
import { get } from "../api";
import { useEpoch, useKept, useWork } from "../hooks";
import { Markdown } from "../parts/markdown";
import { Code, Figure, Progress, Title, Trouble } from "../parts/shown";

interface Entry {
  name: string;
  kind: string;
  about: string;
  ready: boolean;
  megabytes: number;
}
interface Known extends Entry {
  card: string;
  views: Spec[];
  code: string;
}

export function Organisms() {
  const [every, setEvery] = useState<Entry[]>([]);
  const [name, setName] = useKept("organisms.name", "");
  const [known, setKnown] = useState<Known | null>(null);
  const epoch = useEpoch();
  const [listing, reading] = [useWork(), useWork()];
  useEffect(() => listing.start(async () => {
    const list = await get<Entry[]>("/api/organisms");
    setEvery(list);
    if (!name) setName(list.find((one) => one.ready)?.name ?? "");
  }), [epoch]);
  useEffect(() => {
    if (name) reading.start(async (signal) => {
      const found = await get<Known>(`/api/organisms/${encodeURIComponent(name)}`);
      if (!signal.aborted) setKnown(found);
    });
  }, [name, epoch]);
  const told = useRef<HTMLElement>(null);
  // who chose from the end of the list reads the next one from its beginning
  useEffect(() => {
    if (told.current && told.current.getBoundingClientRect().top < 60) told.current.scrollIntoView();
  }, [known?.name]);
  const graph = known?.views.find((view) => view.kind === "graph");
  return (
    <>
      <Title name="Organisms">Small models that ship with mainspring. What is inside each is known, because it was planted or measured, so a method can be judged on it.</Title>
      <Trouble problem={listing.problem ?? reading.problem} />
      {listing.busy && <Progress what="reading" />}
      <div class="split">
        <ul class="choices">
          {every.map((one) => (
            <li key={one.name}>
              <button type="button" aria-pressed={one.name === name} onClick={() => setName(one.name)}>
                <strong>{one.name}</strong><small>{one.kind}{one.ready ? `, ${one.megabytes} MB` : ", not on this machine"}</small>
                <span>{one.about.replaceAll("`", "")}</span>
              </button>
            </li>
          ))}
        </ul>
        {known && (
          <article ref={told} aria-live="polite">
            <h2>{known.name}</h2>
            {!known.ready && <p class="soft">It is not on this machine: <code>mainspring organism train {known.name}</code> makes it.</p>}
            {graph && <Figure spec={graph} />}
            {known.card ? <Markdown text={known.card} /> : known.views.filter((view) => view !== graph).map((view, i) => <Figure key={i} spec={view} />)}
            <Code text={known.code} />
          </article>
        )}
      </div>
    </>
  );
}
