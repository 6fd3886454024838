package process

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"k8s.io/client-go/rest"
)

// Probe asks the API server whether it accepts a token. An error means that it did not answer.
type Probe func(ctx context.Context, token string) (accepted bool, err error)

// maxAnswer bounds what is read of an answer, so that its connection can be used again.
const maxAnswer = 64 << 10

// ProbeBy returns a Probe that makes a request with the token itself, since the caller of lanyard exec seldom may review tokens.
// The answer is about the token alone: a server refuses a token before it looks at what is asked for.
func ProbeBy(config *rest.Config) (Probe, error) {
	anonymous := rest.AnonymousClientConfig(config)
	base, _, err := rest.DefaultServerUrlFor(anonymous)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", config.Host, err)
	}
	client, err := rest.HTTPClientFor(anonymous)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	url := base.JoinPath("version").String()
	return func(ctx context.Context, token string) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		request.Header.Set("Authorization", "Bearer "+token)
		answer, err := client.Do(request)
		if err != nil {
			return false, err
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
		_ = answer.Body.Close()
		switch {
		case answer.StatusCode == http.StatusUnauthorized:
			return false, nil
		case answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= http.StatusInternalServerError:
			return false, fmt.Errorf("%s answered %s", url, answer.Status)
		}
		return true, nil
	}, nil
}
