package ledger

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The limits of one batch. A batch that exceeds one of them can be neither encoded nor decoded.
const (
	// MaxSize is the limit for an encoded batch, in bytes. etcd accepts 1.5 MiB in one request.
	MaxSize = 1 << 20
	// MaxRecords is the limit for the tokens of a batch, and for its certificates.
	MaxRecords = 4096
	// MaxMarks is the limit for the revocations of a batch, and for its uses.
	MaxMarks = 32768
	// MaxText is the limit for each string, in bytes.
	MaxText = 16 << 10
	// MaxList is the limit for the audiences of a token, and for the groups of a certificate.
	MaxList = 1024
)

// The fields of the messages. A number is never used again for another meaning.
const (
	batchText, batchUUID, batchTokenID                                    = 1, 2, 3
	batchTokens, batchCertificates, batchRevocations, batchUses           = 4, 5, 6, 7
	fieldID, fieldTextID                                                  = 1, 2
	fieldIssued, fieldLifetime                                            = 3, 4
	fieldMinterUser, fieldMinterUID, fieldMinterCredential                = 5, 6, 7
	fieldMinterAddress, fieldMinterAgent                                  = 8, 9
	tokenNamespace, tokenAccount, tokenAccountUID                         = 10, 11, 12
	tokenAudiences, tokenKey                                              = 13, 14
	tokenBoundKind, tokenBoundName, tokenBoundUID                         = 15, 16, 17
	tokenNodeKind, tokenNodeName, tokenNodeUID                            = 18, 19, 20
	tokenDigest                                                           = 21
	certificateUser, certificateGroups, certificateSigner, certificateCSR = 10, 11, 12, 13
	markTime, markAddress                                                 = 3, 4
)

// Marshal encodes a batch as a message of protobuf. The batch of this message has fields
//
//	1: text, 2: UUID in 16 bytes, 3: UUID of the credential ID "JTI=UUID"
//	4: token, 5: certificate, 6: revocation, 7: use
//
// all repeated. The entries of fields 1 to 3 form one table of strings in the order in which they appear. Records contain the
// number of an entry, which counts from 1, instead of the string; the entry must precede the record. An absent field, and the
// number 0, mean the empty string. So a string that many records share is stored once.
//
// The fields of a token and of a certificate are
//
//	1: ID in 16 bytes (UUID) or 32 bytes (digest), 2: any other ID as text
//	3: issued, in seconds since 1970 (zigzag), 4: seconds from issued to expires (zigzag)
//	5: minter's user, 6: its UID, 7: its credential ID, 8: its address, 9: its user agent
//
// of a token also
//
//	10: namespace, 11: account, 12: UID of the account, 13: audiences (packed), 14: key
//	15, 16, 17: kind, name and UID of the object it is bound to, 18, 19, 20: those of the node
//	21: digest in 16 bytes; absent if all are 0
//
// and of a certificate also
//
//	10: user, 11: groups (packed), 12: signer, 13: name of the request
//
// The fields of a revocation are 1 and 2 as above, and 3: expires, in seconds since 1970 (zigzag); those of a use are 1 and 2
// as above, 3: when, and 4: address.
//
// Times lose fractions of a second. An error names the record at fault by its position, and quotes nothing.
func (b *Batch) Marshal() ([]byte, error) {
	e := encoder{numbers: map[string]uint64{"": 0}}
	if err := checkCounts(len(b.Tokens), len(b.Certificates), len(b.Revocations), len(b.Uses)); err != nil {
		return nil, err
	}
	for i := range b.Tokens {
		e.begin("token", i)
		e.token(&b.Tokens[i])
		e.end(batchTokens)
	}
	for i := range b.Certificates {
		e.begin("certificate", i)
		e.certificate(&b.Certificates[i])
		e.end(batchCertificates)
	}
	for i := range b.Revocations {
		e.begin("revocation", i)
		e.id(b.Revocations[i].ID)
		e.time(markTime, b.Revocations[i].Expires)
		e.end(batchRevocations)
	}
	for i := range b.Uses {
		e.begin("use", i)
		e.id(b.Uses[i].ID)
		e.time(markTime, b.Uses[i].At)
		e.text(markAddress, b.Uses[i].Address)
		e.end(batchUses)
	}
	if e.err != nil {
		return nil, e.err
	}
	if size := len(e.table) + len(e.records); size > MaxSize {
		return nil, fmt.Errorf("encode batch: it has %d bytes, and the limit is %d: divide it", size, MaxSize)
	}
	return append(e.table, e.records...), nil
}

func checkCounts(tokens, certificates, revocations, uses int) error {
	for _, count := range []struct {
		what     string
		n, limit int
	}{
		{"tokens", tokens, MaxRecords}, {"certificates", certificates, MaxRecords},
		{"revocations", revocations, MaxMarks}, {"uses", uses, MaxMarks},
	} {
		if count.n > count.limit {
			return fmt.Errorf("encode batch: it has %d %s, and the limit is %d: divide it", count.n, count.what, count.limit)
		}
	}
	return nil
}

// encoder encodes one batch. It keeps the first error.
type encoder struct {
	numbers map[string]uint64 // of the entries in table
	table   []byte
	records []byte
	record  []byte // the record between begin and end
	kind    string
	index   int
	err     error
}

func (e *encoder) begin(kind string, index int) {
	e.kind, e.index, e.record = kind, index, e.record[:0]
}

func (e *encoder) end(num protowire.Number) {
	e.records = protowire.AppendTag(e.records, num, protowire.BytesType)
	e.records = protowire.AppendBytes(e.records, e.record)
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = fmt.Errorf("encode %s %d of a batch: %w", e.kind, e.index, err)
	}
}

func (e *encoder) token(t *Token) {
	e.id(t.ID)
	e.times(t.Issued, t.Expires)
	e.minter(&t.Minter)
	e.text(tokenNamespace, t.Namespace)
	e.text(tokenAccount, t.Account)
	e.text(tokenAccountUID, t.AccountUID)
	e.texts(tokenAudiences, t.Audiences)
	e.text(tokenKey, t.Key)
	e.text(tokenBoundKind, t.Bound.Kind)
	e.text(tokenBoundName, t.Bound.Name)
	e.text(tokenBoundUID, t.Bound.UID)
	e.text(tokenNodeKind, t.Node.Kind)
	e.text(tokenNodeName, t.Node.Name)
	e.text(tokenNodeUID, t.Node.UID)
	if t.Digest != (Digest{}) {
		e.bytes(tokenDigest, t.Digest[:])
	}
}

func (e *encoder) certificate(c *Certificate) {
	e.id(c.ID)
	e.times(c.Issued, c.Expires)
	e.minter(&c.Minter)
	e.text(certificateUser, c.User)
	e.texts(certificateGroups, c.Groups)
	e.text(certificateSigner, c.SignerName)
	e.text(certificateCSR, c.Request)
}

func (e *encoder) minter(m *Minter) {
	e.text(fieldMinterUser, m.User)
	e.text(fieldMinterUID, m.UID)
	e.text(fieldMinterCredential, m.Credential)
	e.text(fieldMinterAddress, m.Address)
	e.text(fieldMinterAgent, m.UserAgent)
}

func (e *encoder) id(id string) {
	if uuid, ok := parseUUID(id); ok {
		e.bytes(fieldID, uuid[:])
	} else if digest, ok := parseDigest(id); ok {
		e.bytes(fieldID, digest[:])
	} else if err := checkText(id); err != nil {
		e.fail(err)
	} else if id == "" {
		e.fail(errNoID)
	} else {
		e.bytes(fieldTextID, []byte(id))
	}
}

func (e *encoder) bytes(num protowire.Number, value []byte) {
	e.record = protowire.AppendTag(e.record, num, protowire.BytesType)
	e.record = protowire.AppendBytes(e.record, value)
}

func (e *encoder) times(issued, expires time.Time) {
	e.time(fieldIssued, issued)
	if err := checkSeconds(expires.Unix()); err != nil {
		e.fail(err)
	}
	e.seconds(fieldLifetime, expires.Unix()-issued.Unix())
}

func (e *encoder) time(num protowire.Number, t time.Time) {
	if err := checkSeconds(t.Unix()); err != nil {
		e.fail(err)
	}
	e.seconds(num, t.Unix())
}

func (e *encoder) seconds(num protowire.Number, seconds int64) {
	e.record = protowire.AppendTag(e.record, num, protowire.VarintType)
	e.record = protowire.AppendVarint(e.record, protowire.EncodeZigZag(seconds))
}

func (e *encoder) text(num protowire.Number, text string) {
	if text == "" {
		return
	}
	e.record = protowire.AppendTag(e.record, num, protowire.VarintType)
	e.record = protowire.AppendVarint(e.record, e.number(text))
}

func (e *encoder) texts(num protowire.Number, texts []string) {
	if len(texts) == 0 {
		return
	}
	if len(texts) > MaxList {
		e.fail(errLongList)
		return
	}
	var packed []byte
	for _, text := range texts {
		packed = protowire.AppendVarint(packed, e.number(text))
	}
	e.bytes(num, packed)
}

// number returns the number of a string in the table, and adds the string if it is not there.
func (e *encoder) number(text string) uint64 {
	if n, ok := e.numbers[text]; ok {
		return n
	}
	if err := checkText(text); err != nil {
		e.fail(err)
		return 0
	}
	num, value := protowire.Number(batchText), []byte(text)
	if uuid, ok := parseUUID(text); ok {
		num, value = batchUUID, uuid[:]
	} else if rest, ok := strings.CutPrefix(text, tokenCredential); ok {
		if uuid, ok := parseUUID(rest); ok {
			num, value = batchTokenID, uuid[:]
		}
	}
	e.table = protowire.AppendTag(e.table, num, protowire.BytesType)
	e.table = protowire.AppendBytes(e.table, value)
	n := uint64(len(e.numbers))
	e.numbers[text] = n
	return n
}

var (
	errNoID     = errors.New("it has no ID")
	errLongList = fmt.Errorf("a list has more than %d entries", MaxList)
	errLongText = fmt.Errorf("a string has more than %d bytes", MaxText)
	errNotUTF8  = errors.New("a string is not UTF-8")
	errTime     = errors.New("a time is not in the years 1 to 9999")
)

func checkText[T string | []byte](text T) error {
	if len(text) > MaxText {
		return errLongText
	}
	if !utf8.ValidString(string(text)) {
		return errNotUTF8
	}
	return nil
}

// The first and the last second of the years 1 to 9999, since 1970.
const minSeconds, maxSeconds = -62135596800, 253402300799

func checkSeconds(seconds int64) error {
	if seconds < minSeconds || seconds > maxSeconds {
		return errTime
	}
	return nil
}
