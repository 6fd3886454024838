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
	"lanyard.dev/internal/files"
)

const (
	reloadEvery = 5 * time.Second

	// healthTimeout is how long the issuers of a changed file may take to respond.
	healthTimeout  = 30 * time.Second
	healthInterval = 100 * time.Millisecond

	// retireAfter is how long requests that are under way may use the keys of a configuration that was replaced.
	retireAfter = time.Minute
)

// Config configures an Authenticator.
type Config struct {
	// File is the AuthenticationConfiguration.
	File string
	// Issuers are the issuers of this server, which the file must not name.
	Issuers []string
	// Audiences are the audiences of this server. Tokens that are accepted are valid for these.
	Audiences authenticator.Audiences
	// Every is how often the file is read again; 0 means every five seconds.
	Every time.Duration
	Clock clock.WithTicker
}

// Authenticator accepts tokens of the issuers in a file. It accepts none before Run.
type Authenticator struct {
	Config
	loader  *loader
	first   *apiserver.AuthenticationConfiguration
	data    []byte // the content of the file that was handled last
	current atomic.Pointer[generation]
}

var _ authenticator.Token = &Authenticator{}

// generation is the authenticators of one content of the file.
type generation struct {
	token  authenticator.Token
	checks []oidc.AuthenticatorTokenWithHealthCheck
	end    context.CancelFunc
}

// Open reads the file. The error lists every fault in it.
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

// Anonymous returns the configuration of requests without credentials, or nil. It does not change after Open.
func (a *Authenticator) Anonymous() *apiserver.AnonymousAuthConfig { return a.first.Anonymous }

// AuthenticateToken implements authenticator.Token. A token of an issuer that is not in the file is no error, because another
// authenticator may accept it.
func (a *Authenticator) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	now := a.current.Load()
	if now == nil {
		return nil, false, nil
	}
	return now.token.AuthenticateToken(ctx, text)
}

// Run applies the content of the file, and each change of it, until ctx ends. A change is not applied if it has a fault or if
// an issuer does not respond.
func (a *Authenticator) Run(ctx context.Context) {
	first, err := a.build(ctx, a.first)
	if err != nil {
		klog.ErrorS(err, "Could not apply the authentication configuration", "file", a.File)
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

// reload applies the file if it has changed. If the file cannot be read or an issuer does not respond, the next call tries
// again. If the content has a fault, the next call waits for another content.
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
		klog.InfoS("Applied the changed authentication configuration", "file", a.File)
	case ctx.Err() != nil:
	default:
		klog.ErrorS(err, "Keeping the earlier authentication configuration", "file", a.File)
		if !retry {
			a.data = data
		}
	}
}

// replace applies a new content once all its issuers respond. retry reports whether another attempt with the same content may
// succeed.
func (a *Authenticator) replace(ctx context.Context, data []byte) (retry bool, err error) {
	config, err := a.loader.load(data)
	if err != nil {
		return false, err
	}
	if !equality.Semantic.DeepEqual(config.Anonymous, a.first.Anonymous) {
		return false, errors.New("anonymous: a change requires a restart")
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
		time.AfterFunc(retireAfter, old.end)
	}
	return false, nil
}

// build starts an authenticator for each issuer. The authenticators fetch the keys of their issuers in the background.
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
		tokens = append(tokens, restrict(made, c))
	}
	g.token = authenticator.WrapAudienceAgnosticToken(a.Audiences, union.NewFailOnError(tokens...))
	return g, nil
}

// awaitHealthy waits until every issuer has responded.
func (a *Authenticator) awaitHealthy(ctx context.Context, g *generation) error {
	deadline := a.Clock.NewTimer(healthTimeout)
	defer deadline.Stop()
	tick := a.Clock.NewTicker(healthInterval)
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

// bundle is a constant CA bundle.
type bundle string

// CurrentCABundleContent implements oidc.CAContentProvider.
func (b bundle) CurrentCABundleContent() []byte { return []byte(b) }

// loader parses AuthenticationConfigurations of every version that the library supports.
type loader struct {
	compiler authenticationcel.Compiler
	// own are the issuers of this server, which a configuration must not name.
	own []string
}

func newLoader(own []string) *loader {
	return &loader{compiler: authenticationcel.NewDefaultCompiler(), own: own}
}

func read(file string) ([]byte, error) {
	data, err := files.Read(file, files.MaxConfig)
	if err != nil {
		return nil, fmt.Errorf("read the authentication configuration: %w", err)
	}
	return data, nil
}

// load parses a configuration. The error lists every fault; an unknown field is a fault.
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
