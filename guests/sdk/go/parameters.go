package edge

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const depth = 32

// Parameters are the guest's own, out of the configuration document. Each is asked for once; Close
// refuses what nobody asked for. The first problem is kept, and the readers go on with their
// fallback.
type Parameters struct {
	members []member
	failed  bool
}

type member struct {
	key, value string
	asked      bool
}

// Open reads the document that edge_configure was given; what is wrong with it shows in Close.
func Open(address, bytes uint32) *Parameters {
	parameters := new(Parameters)
	text := string(at[byte](address, bytes))
	reader := reader{text: text}
	if !utf8.ValidString(text) || !reader.document(parameters) {
		parameters.members = nil
		parameters.refuse("configuration, byte " + strconv.Itoa(reader.at) + ": not JSON that this guest takes")
	}
	return parameters
}

// Number reads a number from low to high.
func (parameters *Parameters) Number(key string, fallback, low, high float64) float64 {
	value, found := parameters.ask(key)
	if !found {
		return fallback
	}
	number, err := strconv.ParseFloat(value, 64)
	if err == nil && isNumber(value) && number >= low && number <= high {
		return number
	}
	parameters.refuse("parameters." + key + ": expected a number " + float(low) + ".." + float(high))
	return fallback
}

// Whole reads a whole number from low to high.
func (parameters *Parameters) Whole(key string, fallback, low, high uint32) uint32 {
	value, found := parameters.ask(key)
	if !found {
		return fallback
	}
	number, err := strconv.ParseUint(value, 10, 32)
	if err == nil && number >= uint64(low) && number <= uint64(high) {
		return uint32(number)
	}
	parameters.refuse("parameters." + key + ": expected a whole number " +
		strconv.Itoa(int(low)) + ".." + strconv.Itoa(int(high)))
	return fallback
}

// Close gives the result of edge_configure.
func (parameters *Parameters) Close() int32 {
	for _, member := range parameters.members {
		if !member.asked {
			parameters.refuse("parameters." + member.key + ": no such parameter")
		}
	}
	if parameters.failed {
		return ErrorParameters
	}
	return OK
}

func (parameters *Parameters) ask(key string) (string, bool) {
	for index := range parameters.members {
		if member := &parameters.members[index]; member.key == key {
			member.asked = true
			return member.value, true
		}
	}
	return "", false
}

func (parameters *Parameters) keep(key, value string) {
	if _, twice := parameters.ask(key); twice {
		parameters.refuse("parameters." + key + ": stands twice")
	}
	parameters.members = append(parameters.members, member{key: key, value: value})
}

func (parameters *Parameters) refuse(sentence string) {
	if !parameters.failed {
		Fail(ErrorParameters, sentence)
	}
	parameters.failed = true
}

func float(value float64) string { return strconv.FormatFloat(value, 'g', -1, 64) }

// ParseFloat takes more than JSON does: "+1", "inf", "0x1p2".
func isNumber(value string) bool {
	return strings.IndexByte("-0123456789", value[0]) >= 0
}

// A reader walks over JSON (RFC 8259); its methods are false where it is none, with at at the place.
type reader struct {
	text string
	at   int
}

func (r *reader) document(found *Parameters) bool {
	r.space()
	whole := r.members(0, func(key string) bool {
		if key != "parameters" {
			return r.value(1)
		}
		return r.members(1, func(key string) bool {
			begin := r.at
			good := r.value(2)
			found.keep(key, r.text[begin:r.at])
			return good
		})
	})
	r.space()
	return whole && r.at == len(r.text)
}

func (r *reader) value(level int) bool {
	switch r.peek() {
	case '{':
		return r.members(level, func(string) bool { return r.value(level + 1) })
	case '[':
		return r.list(level, '[', ']', func() bool { return r.value(level + 1) })
	case '"':
		_, good := r.quoted()
		return good
	case 't':
		return r.word("true")
	case 'f':
		return r.word("false")
	case 'n':
		return r.word("null")
	}
	return r.number()
}

func (r *reader) members(level int, each func(key string) bool) bool {
	return r.list(level, '{', '}', func() bool {
		key, good := r.quoted()
		r.space()
		if !good || !r.take(':') {
			return false
		}
		r.space()
		return each(key)
	})
}

func (r *reader) list(level int, open, end byte, each func() bool) bool {
	if level > depth || !r.take(open) {
		return false
	}
	r.space()
	if r.take(end) {
		return true
	}
	for {
		r.space()
		if !each() {
			return false
		}
		r.space()
		if !r.take(',') {
			return r.take(end)
		}
	}
}

// What stands between the quotes; escapes stay as they are written.
func (r *reader) quoted() (string, bool) {
	if !r.take('"') {
		return "", false
	}
	begin := r.at
	for r.peek() != '"' {
		if r.peek() < ' ' || r.peek() == '\\' && !r.escape() {
			return "", false
		}
		r.at++
	}
	r.at++
	return r.text[begin : r.at-1], true
}

// Ends at the escape's last letter.
func (r *reader) escape() bool {
	r.at++
	if r.peek() != 'u' {
		return r.peek() != 0 && strings.IndexByte(`"\/bfnrt`, r.peek()) >= 0
	}
	for range 4 {
		r.at++
		if r.peek() == 0 || strings.IndexByte("0123456789abcdefABCDEF", r.peek()) < 0 {
			return false
		}
	}
	return true
}

func (r *reader) number() bool {
	r.take('-')
	if !r.take('0') && !r.digits() {
		return false
	}
	if r.take('.') && !r.digits() {
		return false
	}
	if r.take('e') || r.take('E') {
		if !r.take('-') {
			r.take('+')
		}
		return r.digits()
	}
	return true
}

func (r *reader) digits() bool {
	begin := r.at
	for r.peek() >= '0' && r.peek() <= '9' {
		r.at++
	}
	return r.at > begin
}

func (r *reader) word(word string) bool {
	if !strings.HasPrefix(r.text[r.at:], word) {
		return false
	}
	r.at += len(word)
	return true
}

func (r *reader) space() {
	for r.take(' ') || r.take('\n') || r.take('\r') || r.take('\t') {
	}
}

// The next byte; 0 at the end, which no JSON holds.
func (r *reader) peek() byte {
	if r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

func (r *reader) take(wanted byte) bool {
	if r.peek() != wanted {
		return false
	}
	r.at++
	return true
}
