import { ERROR_PARAMETERS, OK } from "./abi";
import { fail } from "./runtime";

const DEPTH: i32 = 32;

/**
 * The guest's own parameters, out of the configuration document. Each is asked for once; `close`
 * refuses what nobody asked for. The first problem is kept, and the readers go on with their
 * fallback.
 */
export class Parameters {
  private members: Member[] = [];
  private failed: bool = false;

  /** Opens the document that `edge_configure` was given; what is wrong with it shows in `close`. */
  constructor(document: usize, bytes: u32) {
    const reader = new Reader(document, document + bytes);
    if (!reader.document(this.members)) {
      this.members = [];
      this.refuse(`configuration, byte ${reader.at - document}: not JSON that this guest takes`);
    }
    for (let i = 1; i < this.members.length; i++) {
      const key = this.members[i].key;
      for (let j = 0; j < i; j++) {
        if (this.members[j].key == key) this.refuse(`parameters.${key}: stands twice`);
      }
    }
  }

  /** A number from `low` to `high`. */
  number(key: string, fallback: f64, low: f64, high: f64): f64 {
    const value = this.ask(key);
    if (value === null) return fallback;
    const number = isNumber(value) ? parseFloat(value) : NaN;
    if (number >= low && number <= high) return number;
    this.refuse(`parameters.${key}: expected a number ${low}..${high}`);
    return fallback;
  }

  /** A whole number from `low` to `high`. */
  whole(key: string, fallback: u32, low: u32, high: u32): u32 {
    const value = this.ask(key);
    if (value === null) return fallback;
    const number = isNumber(value) ? parseFloat(value) : NaN;
    if (number >= <f64>low && number <= <f64>high && Math.trunc(number) == number) return <u32>number;
    this.refuse(`parameters.${key}: expected a whole number ${low}..${high}`);
    return fallback;
  }

  /** The result of `edge_configure`. */
  close(): i32 {
    for (let i = 0; i < this.members.length; i++) {
      const member = this.members[i];
      if (!member.asked) this.refuse(`parameters.${member.key}: no such parameter`);
    }
    return this.failed ? ERROR_PARAMETERS : OK;
  }

  private ask(key: string): string | null {
    for (let i = 0; i < this.members.length; i++) {
      const member = this.members[i];
      if (member.key != key) continue;
      member.asked = true;
      return member.value;
    }
    return null;
  }

  private refuse(sentence: string): void {
    if (!this.failed) fail(ERROR_PARAMETERS, sentence);
    this.failed = true;
  }
}

class Member {
  asked: bool = false;
  constructor(
    public key: string,
    public value: string,
  ) {}
}

/** Whether it begins as JSON's numbers do; the reader has seen to the rest. */
function isNumber(value: string): bool {
  const first = value.charCodeAt(0);
  return first == 0x2d || (first >= 0x30 && first <= 0x39);
}

/** Walks over JSON (RFC 8259); false where it is none, with `at` at the place. */
class Reader {
  constructor(
    public at: usize,
    private end: usize,
  ) {}

  document(found: Member[]): bool {
    this.space();
    if (!this.members(0, found)) return false;
    this.space();
    return this.at == this.end;
  }

  /** An object: at level 0 the document, at level 1 `parameters` (then `found` is not null). */
  private members(level: i32, found: Member[] | null): bool {
    if (level > DEPTH || !this.take(0x7b)) return false;
    this.space();
    if (this.take(0x7d)) return true;
    do {
      this.space();
      const begin = this.at;
      if (!this.quoted()) return false;
      const key = this.text(begin + 1, this.at - 1);
      this.space();
      if (!this.take(0x3a)) return false;
      this.space();
      const value = this.at;
      const own = found !== null && level == 0 && key == "parameters";
      if (!(own ? this.members(1, found) : this.value(level + 1))) return false;
      if (found !== null && level == 1) found.push(new Member(key, this.text(value, this.at)));
      this.space();
    } while (this.take(0x2c));
    return this.take(0x7d);
  }

  private list(level: i32): bool {
    if (level > DEPTH || !this.take(0x5b)) return false;
    this.space();
    if (this.take(0x5d)) return true;
    do {
      this.space();
      if (!this.value(level + 1)) return false;
      this.space();
    } while (this.take(0x2c));
    return this.take(0x5d);
  }

  private value(level: i32): bool {
    switch (this.peek()) {
      case 0x7b:
        return this.members(level, null);
      case 0x5b:
        return this.list(level);
      case 0x22:
        return this.quoted();
      case 0x74:
        return this.word("true");
      case 0x66:
        return this.word("false");
      case 0x6e:
        return this.word("null");
      default:
        return this.number();
    }
  }

  private quoted(): bool {
    if (!this.take(0x22)) return false;
    while (this.peek() != 0x22) {
      if (this.peek() < 0x20 || (this.peek() == 0x5c && !this.escape())) return false;
      this.at++;
    }
    this.at++;
    return true;
  }

  /** Ends at the escape's last letter. */
  private escape(): bool {
    this.at++;
    if (this.peek() != 0x75) return '"\\/bfnrt'.indexOf(String.fromCharCode(this.peek())) >= 0;
    for (let i = 0; i < 4; i++) {
      this.at++;
      if ("0123456789abcdefABCDEF".indexOf(String.fromCharCode(this.peek())) < 0) return false;
    }
    return true;
  }

  private number(): bool {
    this.take(0x2d);
    if (!this.take(0x30) && !this.digits()) return false;
    if (this.take(0x2e) && !this.digits()) return false;
    if (!this.take(0x65) && !this.take(0x45)) return true;
    if (!this.take(0x2d)) this.take(0x2b);
    return this.digits();
  }

  private digits(): bool {
    const begin = this.at;
    while (this.peek() >= 0x30 && this.peek() <= 0x39) this.at++;
    return this.at > begin;
  }

  private word(word: string): bool {
    for (let i = 0; i < word.length; i++) {
      if (!this.take(word.charCodeAt(i))) return false;
    }
    return true;
  }

  private space(): void {
    while (this.take(0x20) || this.take(0x0a) || this.take(0x0d) || this.take(0x09)) {}
  }

  /** The next byte; 0 at the end, which no JSON holds. */
  private peek(): i32 {
    return this.at < this.end ? load<u8>(this.at) : 0;
  }

  private take(wanted: i32): bool {
    if (this.peek() != wanted) return false;
    this.at++;
    return true;
  }

  private text(begin: usize, end: usize): string {
    return String.UTF8.decodeUnsafe(begin, end - begin);
  }
}
