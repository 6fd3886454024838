package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clocktesting "k8s.io/utils/clock/testing"
)

// ids returns the IDs of a page.
func ids(page []TokenRecord) []string {
	found := []string{}
	for i := range page {
		found = append(found, page[i].ID)
	}
	return found
}

func TestSelect(t *testing.T) {
	t.Parallel()
	m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
	secret, taken, node := testToken(2), testToken(3), testToken(4)
	secret.Namespace, secret.Bound, secret.Node = "team-b", Object{Kind: "Secret", Name: "builder-1", UID: testUUID(-3)}, Object{}
	taken.ID, taken.Key, taken.Audiences = "taken over", "old", []string{"vault"}
	node.Bound, node.Node, node.Minter = Object{Kind: "Node", Name: "node-1", UID: testUUID(-2)}, Object{}, Minter{User: "jane", Credential: "JTI=a"}
	m.Apply(&Batch{Tokens: []Token{secret, taken, testToken(1), node}}, 7)
	m.Used(Use{ID: testUUID(1), At: testNow, Address: "10.1.2.3"})
	a := []string{testUUID(1), testUUID(4)}
	slices.Sort(a)
	a = append(a, "taken over")
	one, b := testUUID(1), testUUID(2)
	for _, tt := range []struct {
		query Query
		want  []string
	}{
		{Query{}, append(slices.Clone(a), b)},
		{Query{Namespace: "team-b"}, []string{b}},
		{Query{Namespace: "none"}, []string{}},
		{Query{Account: "builder", Namespace: "team-a"}, a},
		{Query{AccountUID: testUUID(-1)}, append(slices.Clone(a), b)},
		{Query{MinterUser: "jane"}, []string{testUUID(4)}},
		{Query{MinterCredential: "JTI=a"}, []string{testUUID(4)}},
		{Query{Bound: Object{Kind: "Pod"}}, slices.DeleteFunc(slices.Clone(a), func(id string) bool { return id == testUUID(4) })},
		{Query{Bound: Object{Name: "builder-1"}, Namespace: "team-a"}, []string{one}},
		{Query{Bound: Object{Name: "builder-1", Kind: "Secret"}}, []string{b}},
		{Query{Bound: Object{UID: testUUID(1 + 1e6)}}, []string{one}},
		{Query{Node: "node-1"}, a},
		{Query{Key: "old"}, []string{"taken over"}},
		{Query{Audience: "vault", Namespace: "team-a"}, a},
		{Query{Audience: "https://kubernetes.default.svc", Namespace: "team-a", Node: "node-1", Key: "old"}, []string{}},
		{Query{After: Position{"team-a", a[0]}}, append(slices.Clone(a[1:]), b)},
		{Query{After: Position{"team-a", "zzz"}}, []string{b}},
		{Query{After: Position{Namespace: "team-b"}}, []string{b}},
		{Query{After: Position{"team-c", ""}}, []string{}},
	} {
		page, more := m.Select(tt.query)
		if got := ids(page); !slices.Equal(got, tt.want) || more {
			t.Errorf("%+v selects %q, more %t; want %q", tt.query, got, more, tt.want)
		}
		var paged []string
		for q, more := tt.query, true; more; {
			q.Limit = 1
			if page, more = m.Select(q); len(page) > 0 {
				paged, q.After = append(paged, page[0].ID), page[0].Position()
			}
		}
		if !slices.Equal(paged, tt.want) && len(tt.want) > 0 {
			t.Errorf("%+v selects %q in pages, want %q", tt.query, paged, tt.want)
		}
	}
	page, _ := m.Select(Query{Bound: Object{UID: testUUID(1 + 1e6)}})
	if want := (Use{ID: one, At: testNow, Address: "10.1.2.3"}); page[0].LastUse != want || page[0].Revision != 7 {
		t.Errorf("last use %+v, revision %d", page[0].LastUse, page[0].Revision)
	}
	if n := m.CountByKey("old"); n != 1 {
		t.Errorf("%d tokens of the old key", n)
	}
}

func TestSelectCertificates(t *testing.T) {
	t.Parallel()
	m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
	for n, user := range []string{"jane", "joe", "jane"} {
		m.Apply(&Batch{Certificates: []Certificate{{
			ID: strings.Repeat(fmt.Sprint(n), 64), User: user, SignerName: "s", Expires: testNow.AddDate(1, 0, 0), Minter: Minter{User: user, Credential: "JTI=a"},
		}}}, uint64(n))
	}
	first, more := m.SelectCertificates(CertificateQuery{User: "jane", SignerName: "s", MinterUser: "jane", MinterCredential: "JTI=a", Limit: 1})
	if len(first) != 1 || first[0].ID[0] != '0' || !more {
		t.Fatalf("first page %+v, more %t", first, more)
	}
	second, more := m.SelectCertificates(CertificateQuery{User: "jane", After: first[0].ID})
	if len(second) != 1 || second[0].ID[0] != '2' || more {
		t.Fatalf("second page %+v, more %t", second, more)
	}
}

func TestChildren(t *testing.T) {
	t.Parallel()
	m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
	minted := func(n int, parent string) Token {
		token := testToken(n)
		token.Minter.Credential = parent
		return token
	}
	certificate := Certificate{ID: strings.Repeat("0f", 32), Expires: testNow.AddDate(1, 0, 0), Minter: Minter{Credential: "JTI=" + testUUID(1)}}
	m.Apply(&Batch{
		Tokens: []Token{
			minted(1, "JTI=root"), minted(2, "JTI="+testUUID(1)), minted(3, certificate.CredentialID()), minted(4, "JTI=other"),
			minted(5, "JTI="+testUUID(6)), minted(6, "JTI="+testUUID(5)), // a cycle, which nothing issues
		},
		Certificates: []Certificate{certificate},
	}, 1)
	for _, tt := range []struct {
		credential   string
		transitive   bool
		tokens       []string
		certificates int
	}{
		{"JTI=root", false, []string{testUUID(1)}, 0},
		{"JTI=root", true, []string{testUUID(1), testUUID(2), testUUID(3)}, 1},
		{"JTI=" + testUUID(1), false, []string{testUUID(2)}, 1},
		{"JTI=" + testUUID(5), true, []string{testUUID(5), testUUID(6)}, 0},
		{"JTI=" + testUUID(2), true, []string{}, 0},
	} {
		tokens, certificates := m.Children(tt.credential, tt.transitive)
		slices.Sort(tt.tokens)
		if got := ids(tokens); !slices.Equal(got, tt.tokens) || len(certificates) != tt.certificates {
			t.Errorf("children of %s, transitive %t: %q and %d certificates", tt.credential, tt.transitive, got, len(certificates))
		}
	}
}
