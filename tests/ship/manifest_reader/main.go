// Manifests reads the files of deploy/ as those programs do that they are for, and says what these would have against them.
//
//	manifests compose FILE...      Compose's own loader: its schema, and that whatever is referred to is there
//	manifests kubernetes FILE...   Kubernetes' and Prometheus Operator's types, no unknown field, and the Pod Security
//	                               Standard "restricted" for each pod
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

var kinds = map[string]func() any{
	"apps/v1 Deployment":                      func() any { return new(apps.Deployment) },
	"v1 ConfigMap":                            func() any { return new(core.ConfigMap) },
	"v1 Namespace":                            func() any { return new(core.Namespace) },
	"v1 Secret":                               func() any { return new(core.Secret) },
	"v1 Service":                              func() any { return new(core.Service) },
	"v1 ServiceAccount":                       func() any { return new(core.ServiceAccount) },
	"monitoring.coreos.com/v1 PodMonitor":     func() any { return new(monitoring.PodMonitor) },
	"monitoring.coreos.com/v1 PrometheusRule": func() any { return new(monitoring.PrometheusRule) },
}

func main() {
	check := map[string]func(string) error{"compose": compose, "kubernetes": kubernetes}[os.Args[1]]
	failed := false
	for _, path := range os.Args[2:] {
		if err := check(path); err != nil {
			fmt.Printf("%s: %v\n", filepath.Base(path), err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

func compose(path string) error {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithOsEnv, cli.WithName("pgleak"))
	if err != nil {
		return err
	}
	_, err = options.LoadProject(context.Background())
	return err
}

func kubernetes(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var head struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal(document, &head); err != nil {
			return err
		}
		kind := head.APIVersion + " " + head.Kind
		create, known := kinds[kind]
		if !known {
			return fmt.Errorf("%q is not known here", kind)
		}
		object := create()
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		if deployment, isOne := object.(*apps.Deployment); isOne {
			if err := restricted(deployment); err != nil {
				return fmt.Errorf("%s %s: %w", kind, deployment.Name, err)
			}
		}
	}
	return nil
}

func restricted(deployment *apps.Deployment) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	pod := deployment.Spec.Template
	found := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec))
	if !found.Allowed {
		return fmt.Errorf("%s", found.ForbiddenDetail())
	}
	return nil
}
