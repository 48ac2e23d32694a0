/** Says what is wrong with a value, or null when nothing is. */
export type ArgumentCheck = (value: unknown) => string | null;

/** An object with these members and no others. A member that is undefined is not sent, so absent. */
export function object(
  required: Readonly<Record<string, ArgumentCheck>>,
  optional: Readonly<Record<string, ArgumentCheck>> = {},
): ArgumentCheck {
  return (value) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return "has to be an object";
    }
    const members = new Map(
      Object.entries(value).filter(([, member]) => (member as unknown) !== undefined),
    );
    for (const name of Object.keys(required)) {
      if (!members.has(name)) return `${name} is missing`;
    }
    for (const [name, member] of members) {
      const check = own(required, name) ?? own(optional, name);
      if (check === undefined) return `${JSON.stringify(name)} is not known`;
      const problem = check(member);
      if (problem !== null) return `${name} ${problem}`;
    }
    return null;
  };
}

export function list(item: ArgumentCheck, itemsMax: number): ArgumentCheck {
  return (value) => {
    if (!Array.isArray(value) || value.length === 0) return "has to be a list that is not empty";
    if (value.length > itemsMax) return `has more than ${itemsMax} items`;
    for (const member of value) {
      const problem = item(member);
      if (problem !== null) return `has an item that ${problem}`;
    }
    return null;
  };
}

export function oneOf(...choices: readonly (string | boolean)[]): ArgumentCheck {
  return (value) =>
    choices.some((choice) => choice === value) ? null : `has to be ${choices.join(" or ")}`;
}

export function text(pattern: RegExp, charactersMax: number): ArgumentCheck {
  return (value) =>
    typeof value === "string" && value.length <= charactersMax && pattern.test(value)
      ? null
      : `has to be a text of at most ${charactersMax} characters that matches ${String(pattern)}`;
}

export function whole(min: number, max: number): ArgumentCheck {
  return (value) =>
    typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max
      ? null
      : `has to be a whole number from ${min} to ${max}`;
}

function own(
  checks: Readonly<Record<string, ArgumentCheck>>,
  name: string,
): ArgumentCheck | undefined {
  return Object.hasOwn(checks, name) ? checks[name] : undefined;
}
