package ledger

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
)

var testNow = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// testUUID returns a UUID that follows from a number.
func testUUID(n int) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(fmt.Sprint(n))).String()
}

// testToken returns a token of the kind that an agent requests for a pod.
func testToken(n int) Token {
	return Token{
		ID: testUUID(n), Namespace: "team-a", Account: "builder", AccountUID: testUUID(-1),
		Audiences: []string{"https://kubernetes.default.svc", "vault"},
		Bound:     Object{Kind: "Pod", Name: fmt.Sprintf("builder-%d", n), UID: testUUID(n + 1e6)},
		Node:      Object{Kind: "Node", Name: "node-1", UID: testUUID(-2)},
		Issued:    testNow, Expires: testNow.Add(time.Hour), Key: "dGhlIGtpZCBvZiBhIGtleQ", Digest: Digest{1, byte(n), 15: 2},
		Minter: Minter{
			User: "system:node:node-1", Credential: "X509SHA256=" + strings.Repeat("ab", 32), Address: "10.0.0.7", UserAgent: "lanyard-agent",
		},
	}
}

func testBatch() *Batch {
	other := testToken(2)
	other.ID, other.Minter.Credential, other.Issued = "taken over", tokenCredential+testUUID(1), time.Time{}
	return &Batch{
		Tokens: []Token{testToken(1), other, {ID: "only an ID", Expires: testNow}},
		Certificates: []Certificate{{
			ID: strings.Repeat("0f", 32), User: "jane", Groups: []string{"dev", "", "dev"}, SignerName: "kubernetes.io/kube-apiserver-client",
			Request: "jane-1", Issued: testNow, Expires: testNow.AddDate(0, 0, 90), Minter: other.Minter,
		}},
		Revocations: []Revocation{{ID: testUUID(3), Expires: testNow}, {ID: strings.Repeat("0f", 32), Expires: testNow}},
		Uses:        []Use{{ID: testUUID(1), At: testNow.Add(time.Minute), Address: "2001:db8::1"}, {ID: "taken over", At: testNow}},
	}
}

func TestMarshal(t *testing.T) {
	t.Parallel()
	for _, want := range []*Batch{{}, testBatch()} {
		data, err := want.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Unmarshal(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// TestMarshalIsSmall checks that a token in a batch takes little more than its ID, its digest and the names that no other token has.
func TestMarshalIsSmall(t *testing.T) {
	t.Parallel()
	var b Batch
	for n := range 64 {
		b.Tokens = append(b.Tokens, testToken(n))
	}
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if size := len(data) / len(b.Tokens); size > 128 {
		t.Errorf("%d bytes for each token", size)
	}
}

func TestMarshalRefuses(t *testing.T) {
	t.Parallel()
	valid := func(change func(*Token)) *Batch {
		token := testToken(1)
		change(&token)
		return &Batch{Tokens: []Token{testToken(0), token}}
	}
	for _, tt := range []struct {
		batch *Batch
		want  string
	}{
		{valid(func(k *Token) { k.ID = "" }), "encode token 1 of a batch: it has no ID"},
		{valid(func(k *Token) { k.ID = "\xff" }), "encode token 1 of a batch: a string is not UTF-8"},
		{valid(func(k *Token) { k.Account = "\xff" }), "encode token 1 of a batch: a string is not UTF-8"},
		{valid(func(k *Token) { k.Account = strings.Repeat("a", MaxText+1) }), "encode token 1 of a batch: a string has more than 16384 bytes"},
		{valid(func(k *Token) { k.Audiences = make([]string, MaxList+1) }), "encode token 1 of a batch: a list has more than 1024 entries"},
		{valid(func(k *Token) { k.Expires = time.Unix(maxSeconds+1, 0) }), "encode token 1 of a batch: a time is not in the years 1 to 9999"},
		{&Batch{Tokens: make([]Token, MaxRecords+1)}, "encode batch: it has 4097 tokens, and the limit is 4096: divide it"},
		{&Batch{Uses: make([]Use, MaxMarks+1)}, "encode batch: it has 32769 uses, and the limit is 32768: divide it"},
	} {
		if _, err := tt.batch.Marshal(); err == nil || err.Error() != tt.want {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
	var large Batch
	for n := range 100 {
		token := testToken(n)
		token.Minter.UserAgent = fmt.Sprint(n, strings.Repeat("a", MaxText-10))
		large.Tokens = append(large.Tokens, token)
	}
	if _, err := large.Marshal(); err == nil || !strings.Contains(err.Error(), "the limit is 1048576: divide it") {
		t.Errorf("error %v", err)
	}
}

// message encodes a message from pairs of a number and a value: a string or []byte, or an int for a varint.
func message(fields ...any) []byte {
	var data []byte
	for i := 0; i < len(fields); i += 2 {
		num := protowire.Number(fields[i].(int))
		switch value := fields[i+1].(type) {
		case int:
			data = protowire.AppendVarint(protowire.AppendTag(data, num, protowire.VarintType), uint64(value))
		case string:
			data = protowire.AppendString(protowire.AppendTag(data, num, protowire.BytesType), value)
		case []byte:
			data = protowire.AppendBytes(protowire.AppendTag(data, num, protowire.BytesType), value)
		}
	}
	return data
}

func TestUnmarshalRefuses(t *testing.T) {
	t.Parallel()
	token := func(fields ...any) []byte { return message(batchText, "secret", batchTokens, message(fields...)) }
	for _, tt := range []struct {
		data []byte
		want string
	}{
		{[]byte{0xff}, "it is not a message of protobuf"},
		{message(batchText, 1), "a field has a wrong type"},
		{message(batchText, "\xff"), "a string is not UTF-8"},
		{message(batchText, strings.Repeat("a", MaxText+1)), "a string has more than 16384 bytes"},
		{message(batchUUID, "short"), "a UUID does not have 16 bytes"},
		{token(), "token 0: it has no ID"},
		{token(fieldID, "short"), "token 0: an ID has neither 16 nor 32 bytes"},
		{token(fieldID, 1), "token 0: a field has a wrong type"},
		{token(fieldTextID, "\xff"), "token 0: a string is not UTF-8"},
		{token(fieldTextID, "a", fieldTextID, "a"), "token 0: a field appears twice"},
		{token(fieldTextID, "a", fieldID, strings.Repeat("a", 16)), "token 0: a field appears twice"},
		{token(fieldTextID, "a", tokenKey, 1, tokenKey, 1), "token 0: a field appears twice"},
		{token(fieldTextID, "a", tokenKey, 2), "token 0: a string's number is not in the table"},
		{token(fieldTextID, "a", tokenKey, "b"), "token 0: a field has a wrong type"},
		{token(fieldTextID, "a", tokenAudiences, []byte{1, 2}), "token 0: a string's number is not in the table"},
		{token(fieldTextID, "a", tokenDigest, "short"), "token 0: the digest of a token does not have 16 bytes"},
		{token(fieldTextID, "a", tokenDigest, 1), "token 0: a field has a wrong type"},
		{token(fieldTextID, "a", tokenAudiences, []byte{0x80}), "token 0: it is not a message of protobuf"},
		{token(fieldTextID, "a", tokenAudiences, make([]byte, MaxList+1)), "token 0: a list has more than 1024 entries"},
		{token(fieldTextID, "a", fieldIssued, 1<<60), "token 0: a time is not in the years 1 to 9999"},
		{token(fieldTextID, "a", fieldLifetime, -1), "token 0: a time is not in the years 1 to 9999"},
		{message(batchUses, message(fieldTextID, "a", markTime, 1<<60)), "use 0: a time is not in the years 1 to 9999"},
		{bytes.Repeat(message(batchTokens, message(fieldTextID, "a")), MaxRecords+1), "it has more than 4096 records of the kind token"},
		{make([]byte, MaxSize+1), "it has 1048577 bytes, and the limit is 1048576"},
	} {
		if _, err := Unmarshal(tt.data); err == nil || err.Error() != "decode batch: "+tt.want {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
}

// TestUnmarshalSkipsUnknownFields decodes what a later version could write.
func TestUnmarshalSkipsUnknownFields(t *testing.T) {
	t.Parallel()
	token := message(fieldTextID, "a", 22, "later", 99, 1, 99, 2)
	use := message(fieldTextID, "a", tokenKey, 7, tokenKey, 7)
	got, err := Unmarshal(message(8, "later", 9, 1, batchTokens, token, batchUses, use))
	if err != nil || len(got.Tokens) != 1 || len(got.Uses) != 1 {
		t.Errorf("batch %+v, error %v", got, err)
	}
}

// FuzzUnmarshal checks that decoding never panics, and that what it accepts is encoded and decoded to the same batch.
func FuzzUnmarshal(f *testing.F) {
	data, err := testBatch().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(message(batchText, testUUID(1), batchTokens, message(fieldTextID, testUUID(2), tokenKey, 1, tokenAudiences, []byte{0, 1})))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := Unmarshal(data)
		if err != nil {
			return
		}
		again, err := first.Marshal()
		if err != nil && len(data) > MaxSize/2 {
			return // The strings got other numbers, which can have more bytes.
		}
		if err != nil {
			t.Fatal(err)
		}
		second, err := Unmarshal(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Fatal(diff)
		}
	})
}
