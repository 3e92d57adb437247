/** The choice of a model: one of those that are known, or any folder or hub id. */

import { useEffect, useState } from "preact/hooks";
import { get, post } from "../api";
import { useEpoch, useKept, useWork } from "../hooks";
import { Progress, Trouble } from "./shown";

export interface Summary {
  name: string;
  class: string;
  family: string;
  layers: number;
  parameters: number;
  device: string;
  dtype: string;
  text: boolean;
  images: boolean;
  generates: boolean;
}

export interface Examples {
  clean: string;
  other: string;
  off: string[];
  words: number;
  summary: Summary;
}

interface Names {
  names: string[];
  first: string[];
}

/** Opens the model of a page; `onOpen` is told its summary and prompts to begin with. */
interface Choice {
  page: string;
  /** The first of these that is there is opened where nothing else was asked for. */
  prefer: string[];
  /** Whether the page needs a model of text alone. */
  text?: boolean;
  onOpen: (found: Examples) => void;
}

export function ModelChoice({ page, prefer, text, onOpen }: Choice) {
  const [name, setName] = useKept(`${page}.model`, "");
  const [typed, type] = useState(name);
  const [names, setNames] = useState<string[]>([]);
  const epoch = useEpoch();
  const { busy, problem, start } = useWork();

  const open = (wanted: string, instead = ""): void => {
    type(wanted);
    start(async (signal) => {
      const found = await post<Examples>("/api/models/examples", { model: wanted }, signal);
      if (signal.aborted) return;
      if (instead && text && found.summary.images) return open(instead);
      setName(wanted);
      onOpen(found);
    });
  };
  useEffect(() => {
    get<Names>("/api/models").then((said) => {
      setNames(said.names);
      const ours = prefer.find((one) => said.names.includes(one)) ?? prefer[0] ?? "";
      open(name || said.first[0] || ours, name ? "" : ours);
    }, () => undefined);
  }, [epoch]);

  return (
    <>
      <form class="model" onSubmit={(e) => (e.preventDefault(), open(typed.trim()))}>
        <label class="field">
          <span>model</span>
          <input
            list="models"
            value={typed}
            spellcheck={false}
            autocomplete="off"
            onInput={(e) => {
              const value = e.currentTarget.value;
              type(value);
              if (names.includes(value)) open(value);
            }}
          />
        </label>
        <datalist id="models">{names.map((one) => <option key={one} value={one} />)}</datalist>
        <button type="submit" disabled={!typed.trim()}>Open</button>
        {busy && <Progress what="opening" />}
      </form>
      <Trouble problem={problem} again={() => open(typed.trim())} />
    </>
  );
}
