import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.Locale;
import java.util.regex.Pattern;

/**
 * One prediction from Java (17 or newer, nothing installed): prints the class and its probability.
 *
 * MODELYARD_URL=http://127.0.0.1:8080 MODELYARD_KEY=mdy_… java Predict.java
 */
public final class Predict {
    private static final String BODY =
        "{\"items\": [{\"sepal_length\": 5.1, \"sepal_width\": 3.5, \"petal_length\": 1.4, \"petal_width\": 0.2}]}";

    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(System.getenv("MODELYARD_URL") + "/v1/models/iris/predictions"))
            .header("x-api-key", System.getenv("MODELYARD_KEY"))
            .header("content-type", "application/json")
            .timeout(Duration.ofSeconds(30))
            .POST(HttpRequest.BodyPublishers.ofString(BODY))
            .build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            System.err.println(answer.statusCode() + " " + answer.body());
            System.exit(1);
        }
        // A JSON library of your choice does this better; the standard library has none.
        var name = find("\"label_name\":\"([^\"]+)\"", answer.body());
        var first = Double.parseDouble(find("\"probabilities\":\\[([^,]+),", answer.body()));
        System.out.printf(Locale.ROOT, "%s %.4f%n", name, first);
    }

    private static String find(String pattern, String text) {
        var match = Pattern.compile(pattern).matcher(text);
        if (!match.find()) {
            throw new IllegalStateException("not in the answer: " + pattern);
        }
        return match.group(1);
    }
}
