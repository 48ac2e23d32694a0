/** A page that takes the place of another. */
export interface View {
  readonly element: HTMLElement;
  readonly title: string;
  stop(): void;
}
