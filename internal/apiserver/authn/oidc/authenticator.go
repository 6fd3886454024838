package oidc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/configfile"
)

const (
	reloadEvery = 5 * time.Second

	// healthyWithin is how long the issuers of a changed file may take to answer before it is put off.
	healthyWithin = 30 * time.Second
	healthPoll    = 100 * time.Millisecond

	// lameFor is how long requests under way may still use the keys of a configuration that was replaced.
	lameFor = time.Minute
)

// Config says where the configuration is.
type Config struct {
	File string
	// Issuers are this server's own, which the configuration must not name.
	Issuers []string
	// Audiences are this server's own names: what a token that is accepted here is good for.
	Audiences authenticator.Audiences
	// Every is how often the file is looked at; 0 means every five seconds.
	Every time.Duration
	Clock clock.WithTicker
}

// Authenticator accepts tokens of the issuers that a file names. It accepts none before Run.
type Authenticator struct {
	Config
	loader  *loader
	first   *apiserver.AuthenticationConfiguration
	data    []byte // the content that was looked at last
	current atomic.Pointer[generation]
}

var _ authenticator.Token = &Authenticator{}

// generation is what one content of the file amounts to.
type generation struct {
	token  authenticator.Token
	checks []oidc.AuthenticatorTokenWithHealthCheck
	end    context.CancelFunc
}

// Open reads the configuration and returns every fault of it.
func Open(c Config) (*Authenticator, error) {
	if c.Every == 0 {
		c.Every = reloadEvery
	}
	a := &Authenticator{Config: c, loader: newLoader(c.Issuers)}
	var err error
	if a.data, err = read(c.File); err != nil {
		return nil, err
	}
	if a.first, err = a.loader.load(a.data); err != nil {
		return nil, fmt.Errorf("authentication configuration %s: %w", c.File, err)
	}
	return a, nil
}

// Anonymous is what the configuration says of requests without credentials, or nil. It holds until the next start.
func (a *Authenticator) Anonymous() *apiserver.AnonymousAuthConfig { return a.first.Anonymous }

// AuthenticateToken implements authenticator.Token. A token of an issuer that is not named is no error: another
// authenticator may know it.
func (a *Authenticator) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	now := a.current.Load()
	if now == nil {
		return nil, false, nil
	}
	return now.token.AuthenticateToken(ctx, text)
}

// Run keeps the content of the file in force until ctx ends. A content that is at fault, or whose issuers do not answer,
// changes nothing.
func (a *Authenticator) Run(ctx context.Context) {
	first, err := a.build(ctx, a.first)
	if err != nil {
		klog.ErrorS(err, "Could not take up the authentication configuration", "file", a.File)
	} else {
		a.current.Store(first)
	}
	tick := a.Clock.NewTicker(a.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
		}
		a.reload(ctx)
	}
}

// reload takes the file up if it has changed. What could not be read is looked at again; what is at fault is not, until
// it changes.
func (a *Authenticator) reload(ctx context.Context) {
	data, err := read(a.File)
	if err != nil {
		klog.ErrorS(err, "Keeping the earlier authentication configuration", "file", a.File)
		return
	}
	if bytes.Equal(data, a.data) {
		return
	}
	switch retry, err := a.replace(ctx, data); {
	case err == nil:
		a.data = data
		klog.InfoS("Took up a changed authentication configuration", "file", a.File)
	case ctx.Err() != nil:
	default:
		klog.ErrorS(err, "Keeping the earlier authentication configuration", "file", a.File)
		if !retry {
			a.data = data
		}
	}
}

// replace puts a new content in force once all its issuers answer.
func (a *Authenticator) replace(ctx context.Context, data []byte) (retry bool, err error) {
	config, err := a.loader.load(data)
	if err != nil {
		return false, err
	}
	if !equality.Semantic.DeepEqual(config.Anonymous, a.first.Anonymous) {
		return false, errors.New("anonymous: a change takes a restart")
	}
	next, err := a.build(ctx, config)
	if err != nil {
		return false, err
	}
	if err := a.awaitHealthy(ctx, next); err != nil {
		next.end()
		return true, err
	}
	if old := a.current.Swap(next); old != nil {
		time.AfterFunc(lameFor, old.end)
	}
	return false, nil
}

// build starts an authenticator for each issuer. They find their issuer's keys by themselves, sooner or later.
func (a *Authenticator) build(ctx context.Context, config *apiserver.AuthenticationConfiguration) (*generation, error) {
	ctx, end := context.WithCancel(ctx)
	g := &generation{end: end}
	var tokens []authenticator.Token
	for _, c := range config.JWT {
		options := oidc.Options{
			JWTAuthenticator: c, Compiler: a.loader.compiler,
			SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(), DisallowedIssuers: a.Issuers,
		}
		if ca := c.Issuer.CertificateAuthority; ca != "" {
			options.CAContentProvider = bundle(ca)
		}
		made, err := oidc.New(ctx, options)
		if err != nil {
			end()
			return nil, fmt.Errorf("issuer %s: %w", c.Issuer.URL, err)
		}
		g.checks = append(g.checks, made)
		tokens = append(tokens, guard(made, c))
	}
	g.token = authenticator.WrapAudienceAgnosticToken(a.Audiences, union.NewFailOnError(tokens...))
	return g, nil
}

func (a *Authenticator) awaitHealthy(ctx context.Context, g *generation) error {
	deadline := a.Clock.NewTimer(healthyWithin)
	defer deadline.Stop()
	tick := a.Clock.NewTicker(healthPoll)
	defer tick.Stop()
	for {
		err := g.health()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C():
			return err
		case <-tick.C():
		}
	}
}

func (g *generation) health() error {
	for _, check := range g.checks {
		if err := check.HealthCheck(); err != nil {
			return err
		}
	}
	return nil
}

// bundle is a CA bundle that does not change.
type bundle string

// CurrentCABundleContent implements oidc.CAContentProvider.
func (b bundle) CurrentCABundleContent() []byte { return []byte(b) }

// loader reads AuthenticationConfigurations, of every version that the library knows.
type loader struct {
	compiler authenticationcel.Compiler
	// own are the issuers of this server, which no other may pretend to be.
	own []string
}

func newLoader(own []string) *loader {
	return &loader{compiler: authenticationcel.NewDefaultCompiler(), own: own}
}

func read(file string) ([]byte, error) {
	data, err := configfile.Read(file)
	if err != nil {
		return nil, fmt.Errorf("read the authentication configuration: %w", err)
	}
	return data, nil
}

// load returns the configuration in data, or every fault at once. An unknown field is a fault.
func (l *loader) load(data []byte) (*apiserver.AuthenticationConfiguration, error) {
	config, err := configfile.Decode[*apiserver.AuthenticationConfiguration](data)
	if err != nil {
		return nil, err
	}
	if err := validation.ValidateAuthenticationConfiguration(l.compiler, config, l.own).ToAggregate(); err != nil {
		return nil, err
	}
	return config, nil
}
