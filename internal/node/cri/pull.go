//go:build linux

package cri

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pulls makes one pull of those that ask at the same time for the same image with the same credentials. With others it
// is another: who has no right to an image does not get it by asking while somebody else does.
type pulls struct {
	mu      sync.Mutex
	running map[string]*pull
}

type pull struct {
	waiters int
	cancel  context.CancelFunc
	done    chan struct{} // closed when id and err are set
	id      string
	err     error
}

// do returns the result of fetch, which runs until it ends or nobody waits for it any more.
func (p *pulls) do(ctx context.Context, key string, fetch func(context.Context) (string, error)) (string, error) {
	p.mu.Lock()
	one := p.running[key]
	if one == nil {
		one = p.start(ctx, key, fetch)
	}
	one.waiters++
	p.mu.Unlock()
	select {
	case <-one.done:
		return one.id, one.err
	case <-ctx.Done():
		p.leave(key, one)
		return "", context.Cause(ctx)
	}
}

func (p *pulls) start(ctx context.Context, key string, fetch func(context.Context) (string, error)) *pull {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTimeout)
	one := &pull{cancel: cancel, done: make(chan struct{})}
	if p.running == nil {
		p.running = map[string]*pull{}
	}
	p.running[key] = one
	go func() {
		defer cancel()
		one.id, one.err = fetch(ctx)
		p.forget(key, one)
		close(one.done)
	}()
	return one
}

func (p *pulls) leave(key string, one *pull) {
	p.mu.Lock()
	one.waiters--
	last := one.waiters == 0
	p.mu.Unlock()
	if last {
		p.forget(key, one) // who comes now starts anew
		one.cancel()
	}
}

func (p *pulls) forget(key string, one *pull) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running[key] == one {
		delete(p.running, key)
	}
}

// pull fetches an image with the first of the credentials that the registry takes; without any, anonymously.
func (r *Runtime) pull(ctx context.Context, image string, logins []login, sandbox *runtimeapi.PodSandboxConfig) (imageID string, err error) {
	key := image
	for _, one := range logins {
		key += "\x00" + one.username + "\x00" + one.password
	}
	return r.pulls.do(ctx, key, func(ctx context.Context) (string, error) {
		ctx, _, images, err := r.connected(ctx)
		if err != nil {
			return "", err
		}
		if len(logins) == 0 {
			id, err := images.PullImage(ctx, &runtimeapi.ImageSpec{Image: image}, nil, sandbox)
			return id, said(err)
		}
		var all []error
		for _, one := range logins {
			id, err := images.PullImage(ctx, &runtimeapi.ImageSpec{Image: image}, one.auth(), sandbox)
			if err == nil {
				return id, nil
			}
			all = append(all, redacted(said(err), one))
		}
		return "", joined(all)
	})
}

// joined is as errors.Join, on one line.
func joined(all []error) error {
	if len(all) == 1 {
		return all[0]
	}
	texts := make([]string, 0, len(all))
	for _, err := range all {
		texts = append(texts, err.Error())
	}
	return errors.New("[" + strings.Join(texts, ", ") + "]")
}

// redacted is the error's text without the login's secrets, in any form in which a URL or a header may have them. What
// it wraps is dropped, for that has the text too.
func redacted(err error, one login) error {
	text := err.Error()
	for _, secret := range []string{one.encoded(), one.password} {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), url.UserPassword("", secret).String()[1:], fmt.Sprintf("%q", secret)} {
			if form != "" && form != `""` {
				text = strings.ReplaceAll(text, form, "[redacted]")
			}
		}
	}
	return errors.New(text)
}
