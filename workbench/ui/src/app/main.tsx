/** The workbench: one page per way of looking, chosen by the address behind the #. */

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { get, line, onLine } from "./api";
import { recallTheme, switchTheme } from "./hooks";
import { Gaze } from "./pages/gaze";
import { Look } from "./pages/look";
import { Models } from "./pages/models";
import { Organisms } from "./pages/organisms";
import { Patch } from "./pages/patch";
import { Steer } from "./pages/steer";
import { Studies } from "./pages/studies";

const PAGES = {
  gaze: { name: "Gaze", Page: Gaze },
  look: { name: "Look", Page: Look },
  patch: { name: "Patch", Page: Patch },
  steer: { name: "Steer", Page: Steer },
  organisms: { name: "Organisms", Page: Organisms },
  studies: { name: "Studies", Page: Studies },
  models: { name: "Models", Page: Models },
} as const;
type Key = keyof typeof PAGES;

function chosen(): Key {
  const key = location.hash.replace(/^#\/?/, "").split("/")[0] ?? "";
  return key in PAGES ? (key as Key) : "gaze";
}

function App() {
  const [page, setPage] = useState<Key>(chosen);
  const [up, setUp] = useState(line.up);
  useEffect(() => {
    const turned = () => {
      setPage(chosen());
      document.getElementById("main")?.focus();
    };
    addEventListener("hashchange", turned);
    const forget = onLine(() => setUp(line.up));
    get<{ limit: number }>("/api/health").then((said) => (line.limit = said.limit), () => undefined);
    return () => {
      removeEventListener("hashchange", turned);
      forget();
    };
  }, []);
  useEffect(() => {
    document.title = `${PAGES[page].name} · mainspring`;
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [page]);
  const { Page } = PAGES[page];
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => (e.preventDefault(), document.getElementById("main")?.focus())}>Skip to the page</a>
      <header>
        <span class="brand"><Spring />mainspring</span>
        <nav aria-label="Pages">
          {(Object.keys(PAGES) as Key[]).map((key) => (
            <a key={key} href={`#/${key}`} aria-current={key === page ? "page" : undefined}>{PAGES[key].name}</a>
          ))}
        </nav>
        <button type="button" class="quiet" onClick={switchTheme}>Light / dark</button>
      </header>
      {!up && <p class="offline" role="status">The server does not answer. This page goes on by itself once it is back.</p>}
      <main id="main" tabIndex={-1} data-page={page}>
        <Page key={page} />
      </main>
    </>
  );
}

/** A coiled spring, drawn once. */
function Spring() {
  return (
    <svg width="20" height="20" viewBox="0 0 20 20" aria-hidden="true">
      <path d="M10 10.2a1.3 1.3 0 1 1 1.3 1.4 3.2 3.2 0 1 1 2-3.2 5 5 0 1 1-5.1-4.6 6.9 6.9 0 1 1-6 7.7" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" />
    </svg>
  );
}

recallTheme();
const host = document.getElementById("app");
if (host) render(<App />, host);
