/** Studies: what papers claim, measured before one's eyes. */

import { useEffect, useState } from "preact/hooks";
import type { Spec } from "../../draw/specs";
import { get } from "../api";
import { streaming, useEpoch, useKept, useWork } from "../hooks";
import { Code, Figure, Progress, Title, Trouble } from "../parts/shown";

interface Verdict {
  held: number;
  claims: number;
  holds: boolean;
  seconds: number;
}
interface Study {
  name: string;
  title: string;
  about: string;
  reference: string;
  organisms: string[];
  last: Verdict | null;
}
interface Claim {
  name: string;
  measured: string;
  wanted: string;
  controlled: string;
  holds: boolean;
}
interface Part {
  claim?: Claim;
  figure?: { caption: string; view: Spec };
  note?: string;
}

export function Studies() {
  const [every, setEvery] = useState<Study[]>([]);
  const [name, setName] = useKept("studies.name", "");
  const [parts, setParts] = useKept<Part[]>("studies.parts", []);
  const [quick, setQuick] = useKept("studies.quick", true);
  const [code, setCode] = useKept("studies.code", "");
  const epoch = useEpoch();
  const [listing, running] = [useWork(), useWork()];
  const list = (): void => listing.start(async () => setEvery(await get<Study[]>("/api/studies")));
  useEffect(list, [epoch]);
  const run = (wanted: string): void => {
    setName(wanted);
    let found: Part[] = [];
    setParts(found);
    running.start(streaming(`/api/studies/${wanted}`, { quick }, (event, data) => {
      if (event === "start") setCode((data as { code: string }).code);
      if (event === "part") setParts((found = [...found, data as Part]));
      if (event === "end") list();
    }));
  };
  const claims = parts.flatMap((part) => part.claim ?? []);
  return (
    <>
      <Title name="Studies">One study for each paper or method: its claims with the bars they have to reach, measured where the answer is known. A claim that does not hold says so.</Title>
      <Trouble problem={listing.problem ?? running.problem} />
      {listing.busy && !every.length && <Progress what="reading" />}
      <label class="tick"><input type="checkbox" checked={quick} onChange={(e) => setQuick(e.currentTarget.checked)} /> quick: fewer rows and disguises</label>
      <ul class="gallery">
        {every.map((one) => (
          <li key={one.name} class={one.name === name ? "on" : ""}>
            <h2>{one.title}</h2>
            <p class="soft">{one.reference}</p>
            <p>{one.about}</p>
            <p class="verdict">
              {one.last
                ? <span class={one.last.holds ? "holds" : "fails"}>{one.last.held} of {one.last.claims} claims hold<small>, {one.last.seconds.toFixed(0)} s</small></span>
                : <span class="soft">not run here yet</span>}
            </p>
            <div class="row">
              {running.busy && one.name === name
                ? <button type="button" onClick={running.cancel}>Stop</button>
                : <button type="button" onClick={() => run(one.name)} aria-label={`Run ${one.name}`}>Run</button>}
              {one.last && <a href={`/api/studies/${one.name}/report`} target="_blank" rel="noopener">Report</a>}
            </div>
          </li>
        ))}
      </ul>
      {name && (running.busy || parts.length > 0) && (
        <section aria-label={name}>
          <h2>{name}</h2>
          {running.busy && <Progress what={`measuring; ${claims.length} claims so far`} />}
          {code && <Code text={code} />}
          {claims.length > 0 && (
            <div class="scroll"><table aria-live="polite">
              <thead><tr><th>claim</th><th>measured</th><th>bar</th><th>control</th><th>verdict</th></tr></thead>
              <tbody>{claims.map((claim, i) => (
                <tr key={i}><td>{claim.name}</td><td>{claim.measured}</td><td>{claim.wanted}</td><td>{claim.controlled}</td><td class={claim.holds ? "holds" : "fails"}>{claim.holds ? "holds" : "does not hold"}</td></tr>
              ))}</tbody>
            </table></div>
          )}
          {parts.flatMap((part) => part.note ?? []).map((note, i) => <p key={i} class="soft">{note}</p>)}
          <div class="figures">
            {parts.flatMap((part) => part.figure ?? []).map((figure, i) => (
              <div key={i}><Figure spec={figure.view} />{figure.caption && <p class="soft">{figure.caption}</p>}</div>
            ))}
          </div>
        </section>
      )}
    </>
  );
}
