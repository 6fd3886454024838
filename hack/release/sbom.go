package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
)

// bill is a bill of materials in the format CycloneDX 1.6, with the fields that are used here.
type bill struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Hashes     []hash     `json:"hashes,omitempty"`
	PURL       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// billOfMaterials lists the modules that Go recorded in the program. Go leaves out modules without code in the program.
func (r release) billOfMaterials(p program) ([]byte, error) {
	sum := sha256.Sum256(p.binary)
	self := component{
		Type: "application", Name: p.info.Main.Path, Version: r.version, PURL: packageURL(p.info.Main.Path, r.version),
		Hashes:     []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
		Properties: []property{{"vcs.revision", r.commit}, {"platform", p.platform.String()}},
	}
	self.Ref = self.PURL
	standard := strings.TrimPrefix(p.info.GoVersion, "go")
	list := bill{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Serial:     "urn:uuid:" + uuid.NewSHA1(uuid.NameSpaceURL, sum[:]).String(),
		Metadata:   metadata{r.time.Format(time.RFC3339), self},
		Components: []component{{Type: "library", Ref: packageURL("stdlib", standard), Name: "stdlib", Version: standard, PURL: packageURL("stdlib", standard)}},
	}
	for _, module := range p.info.Deps {
		list.Components = append(list.Components, library(module))
	}
	needed := dependency{Ref: self.Ref}
	for _, c := range list.Components {
		needed.DependsOn = append(needed.DependsOn, c.Ref)
	}
	list.Dependencies = []dependency{needed}
	text, err := json.MarshalIndent(list, "", "  ")
	return append(text, '\n'), err
}

func library(module *debug.Module) component {
	if module.Replace != nil {
		module = module.Replace
	}
	c := component{Type: "library", Name: module.Path, Version: module.Version, PURL: packageURL(module.Path, module.Version)}
	c.Ref = c.PURL
	if module.Sum != "" {
		c.Properties = []property{{"go.sum", module.Sum}}
	}
	return c
}

// packageURL returns the package URL of a Go module (https://github.com/package-url/purl-spec), in lower case.
func packageURL(path, version string) string {
	var segments []string
	for segment := range strings.SplitSeq(strings.ToLower(path), "/") {
		segments = append(segments, url.PathEscape(segment))
	}
	return "pkg:golang/" + strings.Join(segments, "/") + "@" + url.QueryEscape(version)
}
