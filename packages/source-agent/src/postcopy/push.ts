/** What is sent of the store although nobody waits for it. */

export interface PagePlace {
  readonly block: number;
  readonly page: number;
}

export interface Push {
  /** What the guest is likely to need as soon as it runs, the likeliest first; goes before all else. */
  readonly hot: readonly PagePlace[];
  /**
   * All else as well: not while the guest is about to run or has just begun to, for then it needs the
   * processors and the link for what it asks for.
   */
  readonly isRestDue: boolean;
}
