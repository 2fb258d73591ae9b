package main

import (
	"os"

	"go.yaml.in/yaml/v3"
)

// groupOrder returns the names of a file's groups as they stand there: the loader returns a map.
func groupOrder(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var content struct {
		Groups []struct {
			Name string `yaml:"name"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(text, &content); err != nil {
		return nil, err
	}
	var names []string
	for _, group := range content.Groups {
		names = append(names, group.Name)
	}
	return names, nil
}
