package hint_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"lanyard.dev/internal/hint"
)

func TestOf(t *testing.T) {
	t.Parallel()
	inner := hint.New(io.ErrUnexpectedEOF, "restore the file")
	outer := hint.New(fmt.Errorf("load keys: %w", inner), "start again")
	for _, test := range []struct {
		err        error
		text, want string
	}{
		{inner, "unexpected EOF", "restore the file"},
		{fmt.Errorf("start: %w", inner), "start: unexpected EOF", "restore the file"},
		{errors.Join(io.EOF, inner), "EOF\nunexpected EOF", "restore the file"},
		{outer, "load keys: unexpected EOF", "start again"},
		{io.EOF, "EOF", ""},
	} {
		if got := hint.Of(test.err); got != test.want || test.err.Error() != test.text || (test.want != "" && !errors.Is(test.err, io.ErrUnexpectedEOF)) {
			t.Errorf("%q: hint %q, want %q with %q", test.err, got, test.want, test.text)
		}
	}
	if got := hint.Of(nil); got != "" {
		t.Errorf("no error: %q", got)
	}
}
