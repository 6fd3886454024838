package ledger

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
)

// Unmarshal decodes what Marshal returned. It skips unknown fields. It refuses a batch that exceeds a limit, a field of a
// record that appears twice, and a string that is not UTF-8. What it allocates is bounded by the limits. It does not refuse two
// records with the same ID.
func Unmarshal(data []byte) (*Batch, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("decode batch: it has %d bytes, and the limit is %d", len(data), MaxSize)
	}
	d := decoder{table: []string{""}}
	if err := eachField(data, d.batchField); err != nil {
		return nil, fmt.Errorf("decode batch: %w", err)
	}
	return &d.batch, nil
}

// field is one field of a message. Only one of its values is set.
type field struct {
	num    protowire.Number
	kind   protowire.Type
	number uint64 // VarintType
	bytes  []byte // BytesType; a part of the message
}

// eachField calls visit for each field of a message.
func eachField(message []byte, visit func(field) error) error {
	for len(message) > 0 {
		num, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errMalformed
		}
		message = message[n:]
		f := field{num: num, kind: kind}
		switch kind {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(message)
		default:
			n = protowire.ConsumeFieldValue(num, kind, message)
		}
		if n < 0 {
			return errMalformed
		}
		message = message[n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

var (
	errMalformed = errors.New("it is not a message of protobuf")
	errKind      = errors.New("a field has a wrong type")
	errTwice     = errors.New("a field appears twice")
	errIDSize    = errors.New("an ID has neither 16 nor 32 bytes")
	errEntrySize = errors.New("a UUID does not have 16 bytes")
	errDigest    = errors.New("the digest of a token does not have 16 bytes")
	errNumber    = errors.New("a string's number is not in the table")
)

type decoder struct {
	table []string
	batch Batch
}

func (d *decoder) batchField(f field) error {
	if f.num > batchUses {
		return nil
	}
	if f.kind != protowire.BytesType {
		return errKind
	}
	b := &d.batch
	switch f.num {
	case batchTokens:
		b.Tokens = append(b.Tokens, Token{})
		n := len(b.Tokens) - 1
		return d.record("token", n, MaxRecords, f.bytes, d.token(&b.Tokens[n]))
	case batchCertificates:
		b.Certificates = append(b.Certificates, Certificate{})
		n := len(b.Certificates) - 1
		return d.record("certificate", n, MaxRecords, f.bytes, d.certificate(&b.Certificates[n]))
	case batchRevocations:
		b.Revocations = append(b.Revocations, Revocation{})
		n := len(b.Revocations) - 1
		return d.record("revocation", n, MaxMarks, f.bytes, d.revocation(&b.Revocations[n]))
	case batchUses:
		b.Uses = append(b.Uses, Use{})
		n := len(b.Uses) - 1
		return d.record("use", n, MaxMarks, f.bytes, d.use(&b.Uses[n]))
	default:
		return d.entry(f)
	}
}

// entry adds an entry to the table of strings.
func (d *decoder) entry(f field) error {
	if f.num == batchText {
		if err := checkText(f.bytes); err != nil {
			return err
		}
		d.table = append(d.table, string(f.bytes))
		return nil
	}
	if len(f.bytes) != 16 {
		return errEntrySize
	}
	text := formatUUID(f.bytes)
	if f.num == batchTokenID {
		text = tokenCredential + text
	}
	d.table = append(d.table, text)
	return nil
}

// target says where the fields of a record belong. A nil pointer means that the record has no such field.
type target struct {
	id              *string
	issued, expires *time.Time  // fieldIssued and fieldLifetime
	mark            *time.Time  // markTime
	digest          *Digest     // tokenDigest
	texts           [21]*string // by the number of the field
	list            *[]string
	listField       protowire.Number
}

func (t *target) knows(num protowire.Number) bool {
	switch {
	case num == tokenDigest:
		return t.digest != nil
	case num >= protowire.Number(len(t.texts)):
		return false
	case num == fieldLifetime && t.expires != nil:
		return true
	}
	return num <= markTime || num == t.listField || t.texts[num] != nil
}

func (t *target) minter(m *Minter) {
	t.texts[fieldMinterUser], t.texts[fieldMinterUID], t.texts[fieldMinterCredential] = &m.User, &m.UID, &m.Credential
	t.texts[fieldMinterAddress], t.texts[fieldMinterAgent] = &m.Address, &m.UserAgent
}

func (d *decoder) token(k *Token) target {
	t := target{id: &k.ID, issued: &k.Issued, expires: &k.Expires, list: &k.Audiences, listField: tokenAudiences, digest: &k.Digest}
	t.minter(&k.Minter)
	t.texts[tokenNamespace], t.texts[tokenAccount], t.texts[tokenAccountUID] = &k.Namespace, &k.Account, &k.AccountUID
	t.texts[tokenKey] = &k.Key
	t.texts[tokenBoundKind], t.texts[tokenBoundName], t.texts[tokenBoundUID] = &k.Bound.Kind, &k.Bound.Name, &k.Bound.UID
	t.texts[tokenNodeKind], t.texts[tokenNodeName], t.texts[tokenNodeUID] = &k.Node.Kind, &k.Node.Name, &k.Node.UID
	return t
}

func (d *decoder) certificate(c *Certificate) target {
	t := target{id: &c.ID, issued: &c.Issued, expires: &c.Expires, list: &c.Groups, listField: certificateGroups}
	t.minter(&c.Minter)
	t.texts[certificateUser], t.texts[certificateSigner], t.texts[certificateCSR] = &c.User, &c.SignerName, &c.Request
	return t
}

func (d *decoder) revocation(r *Revocation) target { return target{id: &r.ID, mark: &r.Expires} }

func (d *decoder) use(u *Use) target {
	t := target{id: &u.ID, mark: &u.At}
	t.texts[markAddress] = &u.Address
	return t
}

// record decodes a record, which is the one at index of its kind.
func (d *decoder) record(kind string, index, limit int, message []byte, t target) error {
	if index >= limit {
		return fmt.Errorf("it has more than %d records of the kind %s", limit, kind)
	}
	var seen uint64
	var issued, lifetime int64
	err := eachField(message, func(f field) error {
		if !t.knows(f.num) {
			return nil
		}
		if seen&(1<<f.num) != 0 {
			return errTwice
		}
		seen |= 1 << f.num
		switch {
		case f.num == fieldID || f.num == fieldTextID:
			return t.setID(f)
		case f.num == markTime && t.mark != nil:
			return seconds(f, t.mark)
		case f.num == fieldIssued:
			return zigzag(f, &issued)
		case f.num == fieldLifetime && t.expires != nil:
			return zigzag(f, &lifetime)
		case f.num == t.listField:
			return d.list(f, t.list)
		case f.num == tokenDigest:
			return t.setDigest(f)
		default:
			return d.text(f, t.texts[f.num])
		}
	})
	if err == nil && *t.id == "" {
		err = errNoID
	}
	if err == nil && t.issued != nil {
		err = t.setTimes(issued, lifetime)
	}
	if err != nil {
		return fmt.Errorf("%s %d: %w", kind, index, err)
	}
	return nil
}

func (t *target) setID(f field) error {
	if f.kind != protowire.BytesType {
		return errKind
	}
	if *t.id != "" {
		return errTwice
	}
	if f.num == fieldTextID {
		*t.id = string(f.bytes)
		return checkText(f.bytes)
	}
	switch len(f.bytes) {
	case len(uuid.UUID{}):
		*t.id = formatUUID(f.bytes)
	case sha256.Size:
		*t.id = formatDigest(f.bytes)
	default:
		return errIDSize
	}
	return nil
}

func (t *target) setDigest(f field) error {
	switch {
	case f.kind != protowire.BytesType:
		return errKind
	case len(f.bytes) != len(t.digest):
		return errDigest
	}
	copy(t.digest[:], f.bytes)
	return nil
}

func (t *target) setTimes(issued, lifetime int64) error {
	if lifetime < minSeconds-maxSeconds || lifetime > maxSeconds-minSeconds {
		return errTime
	}
	if err := cmp.Or(checkSeconds(issued), checkSeconds(issued+lifetime)); err != nil {
		return err
	}
	*t.issued, *t.expires = time.Unix(issued, 0).UTC(), time.Unix(issued+lifetime, 0).UTC()
	return nil
}

func zigzag(f field, to *int64) error {
	if f.kind != protowire.VarintType {
		return errKind
	}
	*to = protowire.DecodeZigZag(f.number)
	return nil
}

func seconds(f field, to *time.Time) error {
	var value int64
	if err := zigzag(f, &value); err != nil {
		return err
	}
	*to = time.Unix(value, 0).UTC()
	return checkSeconds(value)
}

func (d *decoder) text(f field, to *string) error {
	if f.kind != protowire.VarintType {
		return errKind
	}
	if f.number >= uint64(len(d.table)) {
		return errNumber
	}
	*to = d.table[f.number]
	return nil
}

func (d *decoder) list(f field, to *[]string) error {
	if f.kind != protowire.BytesType {
		return errKind
	}
	var list []string
	for rest := f.bytes; len(rest) > 0; {
		number, n := protowire.ConsumeVarint(rest)
		if n < 0 {
			return errMalformed
		}
		rest = rest[n:]
		if len(list) == MaxList {
			return errLongList
		}
		if number >= uint64(len(d.table)) {
			return errNumber
		}
		list = append(list, d.table[number])
	}
	*to = list
	return nil
}
