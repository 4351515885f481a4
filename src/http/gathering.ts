/** Bytes that come in pieces, put together without being there twice: the buffer grows in place. */

/** Longer texts than this cannot be made of them anyway. */
const BYTES_MAX = 2 ** 31;

export class Gathering {
  readonly #buffer: ArrayBuffer;
  #length = 0;

  /** Address space is set aside for `bytesMax`, memory is used for what is added. */
  constructor(bytesMax: number) {
    this.#buffer = new ArrayBuffer(0, { maxByteLength: Math.min(bytesMax, BYTES_MAX) });
  }

  get length(): number {
    return this.#length;
  }

  add(piece: Uint8Array): void {
    this.#buffer.resize(this.#length + piece.length);
    new Uint8Array(this.#buffer, this.#length).set(piece);
    this.#length += piece.length;
  }

  /** Everything that was added. Nothing can be added any more. */
  end(): Uint8Array {
    return new Uint8Array(this.#buffer.transferToFixedLength());
  }
}
