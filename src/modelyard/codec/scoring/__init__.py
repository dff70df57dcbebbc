"""The scoring forms that other servers made common: TensorFlow Serving's rows and columns, MLflow's and SageMaker's
`/invocations`. All of them read a table or a nested list into `parts`, and write `predictions` or `outputs`."""
