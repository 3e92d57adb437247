/** What every page shows alike: a figure, its code, a problem, progress, a field. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { draw, drawing } from "../../draw/draw";
import { themeOf } from "../../draw/colour";
import { sentence } from "../../draw/describe";
import { el, visible } from "../../draw/dom";
import { inspect } from "../../draw/inspect";
import type { Spec } from "../../draw/specs";
import type { Problem } from "../api";
import { onTheme } from "../hooks";

interface Shown {
  spec: Spec;
  code?: string | undefined;
  /** Called with the index of a mark that is clicked, or chosen with Enter; cells count along the rows. */
  onMark?: (index: number) => void;
}

/** A spec, drawn by the drawing code of the reports. */
export function Figure({ spec, code, onMark }: Shown) {
  const host = useRef<HTMLDivElement>(null);
  const call = useRef(onMark);
  call.current = onMark;
  const clickable = onMark !== undefined;
  useEffect(() => {
    if (!host.current) return;
    const redraw = clickable ? drawClickable(host.current, spec, (index) => call.current?.(index)) : draw(host.current, spec);
    const forget = onTheme(redraw);
    const place = host.current;
    return () => {
      forget();
      place.replaceChildren();
    };
  }, [spec, clickable]);
  return (
    <section class="figure">
      <div ref={host} />
      {code !== undefined && <Code text={code} />}
    </section>
  );
}

/** As `draw`, with marks that can be chosen. */
function drawClickable(host: HTMLElement, spec: Spec, choose: (index: number) => void): () => void {
  const stage = el("div", { class: "ms-stage clickable", tabindex: 0, role: "group", "aria-label": sentence(spec) });
  stage.setAttribute("aria-description", "The arrow keys go from value to value, Enter opens one.");
  const figure = el("figure", { class: "ms-view", "data-kind": spec.kind });
  if (spec.title) figure.append(el("figcaption", {}, visible(spec.title)));
  figure.append(stage);
  host.append(figure);
  let [width, now, forget] = [0, -1, (): void => undefined];
  const redraw = (): void => {
    forget();
    const { node, marks } = drawing(spec, { width: Math.max(260, width || stage.clientWidth), theme: themeOf(stage) });
    stage.replaceChildren(node);
    marks.forEach((mark, i) => (mark.chosen = (on) => (now = on ? i : -1)));
    forget = inspect(stage, marks);
  };
  stage.addEventListener("click", () => now >= 0 && choose(now));
  stage.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && now >= 0) {
      event.preventDefault();
      choose(now);
    }
  });
  const fit = (): void => {
    if (Math.abs(stage.clientWidth - width) < 1) return;
    width = stage.clientWidth;
    redraw();
  };
  fit();
  new ResizeObserver(() => requestAnimationFrame(fit)).observe(stage);
  return redraw;
}

/** The lines that make the picture, to be taken along. */
export function Code({ text }: { text: string }) {
  const [said, say] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
    } catch {
      say("Select the lines below and copy them");
    }
    setTimeout(() => say(""), 2500);
  };
  return (
    <details class="code">
      <summary>Copy the code</summary>
      <div>
        <button type="button" class="quiet" onClick={() => void copy()}>Copy</button>
        <span role="status">{said}</span>
      </div>
      <pre tabIndex={0}><code>{text}</code></pre>
    </details>
  );
}

/** Messages are written to stand within others; names keep their own spelling. */
function said(message: string): string {
  const begun = /^[a-z]+[ ,]/.test(message) ? message.charAt(0).toUpperCase() + message.slice(1) : message;
  return /[.?!)]$/.test(begun) ? begun : `${begun}.`;
}

export function Trouble({ problem, again }: { problem: Problem | null; again?: () => void }) {
  if (!problem || problem.lost) return null;
  return (
    <div class="trouble" role="alert">
      <p><strong>{said(problem.message)}</strong></p>
      {problem.fix && <p>{problem.fix}</p>}
      {again && <button type="button" onClick={again}>Try again</button>}
    </div>
  );
}

export function Progress({ what, done, of }: { what: string; done?: number; of?: number }) {
  return (
    <p class="progress" role="status">
      <progress {...(of ? { value: done ?? 0, max: of } : {})} aria-label={what} /> {what}{of ? ` ${done ?? 0} of ${of}` : ""}
    </p>
  );
}

export function Field({ name, children, wide }: { name: string; children: ComponentChildren; wide?: boolean }) {
  return <label class={wide ? "field wide" : "field"}><span>{name}</span>{children}</label>;
}

/** A file of one's own. The same file can be chosen again, for it may have changed. */
export function Upload({ accept, send, children }: { accept: string; send: (file: File) => void; children: ComponentChildren }) {
  return (
    <label class="upload">
      <input
        type="file"
        accept={accept}
        onChange={(e) => {
          const file = e.currentTarget.files?.[0];
          if (file) send(file);
          e.currentTarget.value = "";
        }}
      />
      <span>{children}</span>
    </label>
  );
}

export function Title({ name, children }: { name: string; children: ComponentChildren }) {
  return <div class="title"><h1>{name}</h1><p>{children}</p></div>;
}
