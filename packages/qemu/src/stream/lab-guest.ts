import { PAGE_BYTES } from "./stream-format.ts";

const LOAD_AT = 0x100000;
const HEADER_BYTES = 0x20;
const FIRST_PAGE_AT = 0x200000;

/** Where the guest keeps its counter, and how many pages it goes round. */
export const BUSY_GUEST_COUNTER_AT = FIRST_PAGE_AT - PAGE_BYTES;
export const BUSY_GUEST_PAGE_COUNT = 1024;

function u32le(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

/**
 * A kernel that does nothing but write a growing counter to a page after the other, round and
 * round: a guest that dirties memory from its first instruction, without any file to boot from.
 * A multiboot header, then 32-bit code.
 */
export function busyGuestKernel(): Buffer {
  const magic = 0x1badb002;
  const flags = 0x00010000;
  const header = [magic, flags, -(magic + flags), LOAD_AT, LOAD_AT, 0, 0, LOAD_AT + HEADER_BYTES];
  const code = [
    Buffer.of(0x31, 0xc0), // xor eax, eax
    Buffer.of(0xbf), // round: mov edi, FIRST_PAGE_AT
    u32le(FIRST_PAGE_AT),
    Buffer.of(0x40), // next: inc eax
    Buffer.of(0x89, 0x07), // mov [edi], eax
    Buffer.of(0xa3), // mov [COUNTER_AT], eax
    u32le(BUSY_GUEST_COUNTER_AT),
    Buffer.of(0x81, 0xc7), // add edi, PAGE_BYTES
    u32le(PAGE_BYTES),
    Buffer.of(0x81, 0xff), // cmp edi, the end
    u32le(FIRST_PAGE_AT + BUSY_GUEST_PAGE_COUNT * PAGE_BYTES),
    Buffer.of(0x72, 0xea), // jb next
    Buffer.of(0xeb, 0xe3), // jmp round
  ];
  return Buffer.concat([...header.map((word) => u32le(word)), ...code]);
}
