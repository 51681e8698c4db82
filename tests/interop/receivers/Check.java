import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;

/** Runs the cases of a file of tab-separated lines through the Java of the receiver kit; prints the name of each that was taken. */
public final class Check {
    public static void main(String[] arguments) throws Exception {
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] part = line.split("\t", -1);
            boolean isTaken;
            try {
                isTaken = isTaken(part);
            } catch (IllegalArgumentException | java.security.GeneralSecurityException refused) {
                isTaken = false;
            }
            if (isTaken) {
                System.out.println(part[0]);
            }
        }
    }

    private static String text(String base64) {
        return new String(Base64.getDecoder().decode(base64), java.nio.charset.StandardCharsets.UTF_8);
    }

    private static boolean isTaken(String[] part) throws java.security.GeneralSecurityException {
        return switch (part[1]) {
            case "standard" -> VerifyWebhook.isStandard(
                    part[2], part[3], part[4], part[5], Base64.getDecoder().decode(part[6]), Long.parseLong(part[7]));
            case "header-hmac" -> VerifyWebhook.isHeaderHmac(part[2], part[3], Base64.getDecoder().decode(part[4]));
            case "body-hmac-sha256" -> VerifyWebhook.isSignedEnvelope(part[2], text(part[3]), part[4]);
            default -> VerifyWebhook.isSignedEnvelopeRsa(text(part[2]), text(part[3]), part[4]);
        };
    }
}
